"""Rate limits of API keys and addresses, as moving windows: in memory, or in Redis for several processes.

A limit such as ``60/minute`` allows at most 60 requests in any 60 seconds.
"""

import ipaddress
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Self

from limits import RateLimitItem, parse_many
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import ConfigurationError, StorageError

from vlmbatch.config.spec import LONGEST_S, redact, require
from vlmbatch.errors import ConfigError, MissingDependencyError

MOST_REQUESTS = 1_000_000
"""The most requests that a limit may allow in its time: each needs eight bytes until that time is over."""
MOST_BUCKETS = 100_000
"""So many buckets of a limit are kept in memory. Then the bucket that has waited longest is forgotten."""
REDIS_TIMEOUT_S = 1.0
REDIS_AWAY_S = 5.0
"""After a failure, Redis is not asked for this many seconds."""
OF_REDIS = "vlmbatch"
"""The start of all names in Redis."""
EXAMPLE = "60/minute, or 10/second;1000/day"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A refused request: the whole seconds to wait, at least 1, and the limit, such as ``60/minute``."""

    seconds: int
    limit: str

    @classmethod
    def of(cls, limit: RateLimitItem, seconds: float) -> Self:
        """The wait for this limit, rounded up."""
        several = limit.multiples if limit.multiples > 1 else ""
        text = f"{limit.amount}/{several}{limit.GRANULARITY.name}"
        return cls(seconds=max(1, ceil(seconds)), limit=text)


def key_bucket(name: str) -> str:
    """The bucket of the API key with this name."""
    return f"key:{name}"


def address_bucket(address: str) -> str:
    """The bucket of a client's address; an IPv6 address counts with its whole /64.

    A client usually has a /64 of its own, and may use any address in it. All texts that are no address share
    one bucket.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "address:other"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return f"address:{ipaddress.IPv6Network((found, 64), strict=False)}"
        found = found.ipv4_mapped
    return f"address:{found}"


@lru_cache(maxsize=1024)
def limits_of(rate: str, origin: str) -> tuple[RateLimitItem, ...]:
    """The limits in this text, such as ``10/second;1000/day``; all of them must hold.

    Raises:
        ConfigError: the text is wrong; `origin` says where it is, such as ``--rate``.
    """
    try:
        found = tuple(parse_many(rate))
    except ValueError as error:
        raise ConfigError(f"{origin} {rate!r} is not a rate; write for example {EXAMPLE}") from error
    for limit in found:
        require(
            1 <= limit.amount <= MOST_REQUESTS and limit.get_expiry() <= LONGEST_S,
            f"{origin} {rate!r} must allow 1 to {MOST_REQUESTS:,} requests in at most ten years; "
            f"write for example {EXAMPLE}",
        )
    return found


class RateLimits:
    """Counts the requests of each bucket. Buckets are made by `key_bucket` and `address_bucket`.

    While Redis is away, the limits hold for this process alone, and `tell` gets one message.
    """

    def __init__(
        self,
        rate: str | None,
        storage_url: str | None,
        *,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rate` is the limit of each bucket without one of its own; None allows everything.

        `storage_url` is a ``redis://`` or ``rediss://`` URL; None keeps the counts in memory.

        Raises:
            ConfigError: the rate or the URL is wrong.
            MissingDependencyError: the package redis is not installed.
        """
        self._rate = rate
        if rate is not None:
            limits_of(rate, "--rate")
        self._tell = tell
        self._clock = clock
        self._memory = _Windows(clock)
        self._redis = None if storage_url is None else _Redis(storage_url)
        self._away_until: float | None = None

    async def taken(self, bucket: str, rate: str | None) -> Wait | None:
        """Count a request of this bucket; None if it is allowed, else how long it must wait.

        `rate` is the limit of the bucket, in place of the usual limit. A refused request is not counted.

        Raises:
            ConfigError: `rate` is wrong.
        """
        text = self._rate if rate is None else rate
        if text is None:
            return None
        limits = limits_of(text, "the rate")
        if self._redis is None or not self._may_ask():
            return self._memory.taken(bucket, limits)
        try:
            wait = await self._redis.taken(bucket, limits)
        except (StorageError, OSError) as error:
            self._lost(self._redis.place, error)
            return self._memory.taken(bucket, limits)
        self._found(self._redis.place)
        return wait

    async def aclose(self) -> None:
        """Close the connections to Redis, if there are any."""
        if self._redis is not None:
            await self._redis.aclose()

    def _may_ask(self) -> bool:
        """Whether Redis is asked now. While it is away, one request at a time tries it again."""
        if self._away_until is None:
            return True
        now = self._clock()
        if now < self._away_until:
            return False
        self._away_until = now + REDIS_AWAY_S
        return True

    def _lost(self, place: str, error: Exception) -> None:
        if self._away_until is None:
            cause = error.storage_error if isinstance(error, StorageError) else error
            self._tell(
                f"{place} cannot count requests now ({type(cause).__name__}); until then, each process of "
                "the service counts its own requests; check that Redis runs there"
            )
        self._away_until = self._clock() + REDIS_AWAY_S

    def _found(self, place: str) -> None:
        if self._away_until is not None:
            self._away_until = None
            self._tell(f"{place} counts requests again")


class _Windows:
    """The times of the requests of each bucket and limit, in seconds of the clock.

    The buckets of a limit are in the order of their last request, so those whose time is over come first.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_limit: dict[RateLimitItem, OrderedDict[str, array[float]]] = {}

    def __len__(self) -> int:
        """The number of buckets, counted once for each limit."""
        return sum(map(len, self._by_limit.values()))

    def taken(self, bucket: str, limits: Sequence[RateLimitItem]) -> Wait | None:
        """Count a request if all limits allow it; else the longest wait."""
        now = self._clock()
        refused = list[tuple[float, RateLimitItem]]()
        for limit in limits:
            times = self._times(bucket, limit, now)
            if len(times) >= limit.amount:
                refused.append((times[-limit.amount] + limit.get_expiry() - now, limit))
        if refused:
            seconds, limit = max(refused, key=lambda each: each[0])
            return Wait.of(limit, seconds)
        for limit in set(limits):
            buckets = self._by_limit[limit]
            buckets.setdefault(bucket, array("d")).append(now)
            buckets.move_to_end(bucket)
            if len(buckets) > MOST_BUCKETS:
                buckets.popitem(last=False)
        return None

    def _times(self, bucket: str, limit: RateLimitItem, now: float) -> "array[float]":
        """The times of this bucket that still count; also forgets buckets whose time is over."""
        buckets = self._by_limit.setdefault(limit, OrderedDict())
        start = now - limit.get_expiry()
        while buckets and next(iter(buckets.values()))[-1] <= start:
            buckets.popitem(last=False)
        times = buckets.get(bucket)
        if times is None:
            return array("d")
        del times[: bisect_right(times, start)]
        return times


class _Redis:
    """The same windows in Redis, where several processes share them."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError or MissingDependencyError; connects only on use."""
        self.place = f"--rate-storage {redact(url)}"
        wrong = f"{self.place} cannot be used; write for example redis://127.0.0.1:6379"
        require(url.startswith(("redis://", "rediss://")), wrong)
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise MissingDependencyError(
                f'{self.place} needs the package redis; type: pip install "vlmbatch[service]" redis'
            ) from error
        try:
            client = Redis.from_url(
                url,
                socket_timeout=REDIS_TIMEOUT_S,
                socket_connect_timeout=REDIS_TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),
            )
            storage = RedisStorage(
                f"async+{url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix=OF_REDIS,
                connection_pool=client.connection_pool,  # type: ignore[arg-type]  # as the library documents
            )
        except (ValueError, TypeError, ConfigurationError) as error:
            raise ConfigError(wrong) from error
        self._client = client
        self._windows = MovingWindowRateLimiter(storage)

    async def taken(self, bucket: str, limits: Sequence[RateLimitItem]) -> Wait | None:
        """Count a request if all limits allow it. Raises StorageError if Redis gives no answer.

        If another process takes the last place of a limit meanwhile, the request may have been counted for
        the limits before it.
        """
        if len(limits) > 1:
            for limit in limits:
                if not await self._windows.test(limit, bucket):
                    return await self._wait(bucket, limit)
        for limit in limits:
            if not await self._windows.hit(limit, bucket):
                return await self._wait(bucket, limit)
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _wait(self, bucket: str, limit: RateLimitItem) -> Wait:
        # the library writes the times of requests by the clock of this machine
        stats = await self._windows.get_window_stats(limit, bucket)
        return Wait.of(limit, stats.reset_time - time.time())
