"""Decides whether a request may enter: its host, its key, its rate, and how many requests are in progress."""

from collections import Counter
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers

from vlmbatch.config.service import LOOPBACK, ServiceOptions
from vlmbatch.service.call import Call
from vlmbatch.service.keys import ApiKey, KeyRing
from vlmbatch.service.problems import Problem
from vlmbatch.service.rate_limits import RateLimits, address_bucket, key_bucket

OPEN_PATHS = frozenset(("/", "/page.css", "/page.js", "/health", "/ready", "/openapi.json"))
"""The paths that need no key and have no limit: they send nothing to a model."""
METRICS_PATHS = frozenset(("/metrics", "/health", "/ready"))
"""The paths at the port of --metrics-port."""
WRONG_KEYS = "20/minute"
"""An address may present this many wrong keys."""


class Admission:
    """Lets requests in, and counts those in progress."""

    def __init__(self, options: ServiceOptions, keys: KeyRing, rates: RateLimits) -> None:
        """`keys` is empty if clients need no key."""
        self._options = options
        self._keys = keys
        self._rates = rates
        self._by_key: Counter[str] = Counter()
        self.stopping = False

    async def check(self, call: Call, headers: Headers, *, has_own_port: bool = False) -> None:
        """Find the API key of the request. `has_own_port`: it came to the port of --metrics-port.

        Raises:
            Problem: the request may not enter.
        """
        if has_own_port:
            if call.path not in METRICS_PATHS:
                raise Problem(
                    "not_found", "this port has only /metrics, /health and /ready; use the port of --port"
                )
            return
        if call.path in OPEN_PATHS:
            return
        if not self._options.has_keys:
            self._check_origin(headers)
        else:
            call.key = await self._key_of(call, headers)
        await self._check_rate(call)
        if self.stopping:
            raise Problem("stopping", "the service is stopping; try again later")

    def enter(self, call: Call) -> "Place":
        """The place of a request among those in progress.

        Raises:
            Problem: the service, or the API key, has as many requests in progress as it may have.
        """
        if call.path in OPEN_PATHS or call.path in METRICS_PATHS:
            return Place(self, None)
        if self.in_work >= self._options.max_requests:
            raise Problem(
                "overloaded",
                f"{self.in_work} requests are in progress, and no more are allowed; try again later",
            )
        name, most = ("", None) if call.key is None else (call.key.name, call.key.concurrent)
        if most is not None and self._by_key[name] >= most:
            raise Problem(
                "rate_limited",
                f"this API key has {most} requests in progress, which is its limit; wait for an answer",
            )
        self._by_key[name] += 1
        return Place(self, name)

    @property
    def in_work(self) -> int:
        """How many requests are in progress."""
        return self._by_key.total()

    def leave(self, name: str) -> None:
        """A request with the key of this name is no longer in progress."""
        self._by_key[name] -= 1
        if not self._by_key[name]:
            del self._by_key[name]

    async def _key_of(self, call: Call, headers: Headers) -> ApiKey:
        presented = _presented(headers)
        key = None if presented is None else self._keys.find(presented)
        if key is not None:
            return key
        if presented is not None:
            await self._take(
                f"wrong-key:{address_bucket(call.address)}",
                WRONG_KEYS,
                "too many wrong API keys came from this address",
            )
        told = (
            "the service does not know this API key"
            if presented is not None
            else "the service needs an API key"
        )
        raise Problem(
            "unauthorized",
            f"{told}; send the header Authorization: Bearer KEY",
            headers={"WWW-Authenticate": "Bearer"},
        )

    async def _check_rate(self, call: Call) -> None:
        key = call.key
        if key is not None:
            await self._take(key_bucket(key.name), key.rate, "this API key has sent too many requests")
        if key is None or key.rate is None:
            await self._take(address_bucket(call.address), None, "this address has sent too many requests")

    async def _take(self, bucket: str, rate: str | None, told: str) -> None:
        wait = await self._rates.taken(bucket, rate)
        if wait is not None:
            told = f"{told} ({wait.limit}); try again in {wait.seconds} s"
            raise Problem("rate_limited", told, retry_after_s=wait.seconds)

    def _check_origin(self, headers: Headers) -> None:
        """Refuse a web page that uses this machine's browser to reach a service without keys.

        Such a page sends its requests under its own origin, or under a host name of its own that leads here.
        """
        host = _parts(f"//{headers.get('host', '')}").hostname or ""
        if self._options.is_local and host not in LOOPBACK:
            raise Problem(
                "bad_host",
                f"the service is at {LOOPBACK[0]}, not at {host[:100]!r}; write {LOOPBACK[0]} in the URL",
            )
        origin = headers.get("origin")
        if origin is None or origin in self._options.cors_origin:
            return
        if _parts(origin).netloc != headers.get("host"):
            raise Problem(
                "forbidden",
                f"web pages of {origin[:100]!r} may not use the service; to allow them, start the service "
                "with --cors-origin",
            )


class Place:
    """The place of a request among those in progress, until it is free."""

    def __init__(self, admission: Admission, name: str | None) -> None:
        """`name` is that of the key, empty without keys; None: the request is not counted."""
        self._admission = admission
        self._name = name

    def free(self) -> None:
        """The request is answered: another one may take the place."""
        if self._name is not None:
            self._admission.leave(self._name)
            self._name = None


def _parts(url: str) -> SplitResult:
    """The parts of a URL that a client sent; they are empty if it is no URL."""
    try:
        return urlsplit(url)
    except ValueError:  # for half of an IPv6 address
        return SplitResult("", "", "", "", "")


def _presented(headers: Headers) -> str | None:
    """The key that the client sends; None without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key")
