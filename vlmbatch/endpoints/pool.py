"""The endpoint pool: gives each request a slot at an endpoint that is up and free, or at a fallback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.crash_history import CrashHistory
from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.semaphore import ResizableSemaphore
from vlmbatch.endpoints.wait_queue import WaitQueue
from vlmbatch.errors import BackendError, FatalBackendError, UnavailableError
from vlmbatch.events import ConcurrencyChanged, tell
from vlmbatch.protocols import Observer, Sleep

MOST_AHEAD = 64
"""As many images as slots are prepared ahead, since answers come in bursts, but at most this many."""

RECOVERY_S = 5.0
"""A session proves a lost endpoint again after this many seconds; the proof has its own waits."""


class EndpointPool:
    """The endpoints of a run or session. Proofs and probes run in tasks of their own."""

    def __init__(
        self,
        *,
        ahead: int,
        notify: Observer,
        bugs: Bugs,
        fallbacks_step_in: bool = False,
        recovers: bool = False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """At least `ahead` more images than slots may be on their way.

        `fallbacks_step_in`: fallbacks get the images while all endpoints before them are down. `recovers`: a
        lost endpoint is proven again until the pool is closed, as a session needs. In a run a fatal loss is
        final; an endpoint lost to an outage is tried again while another one answers.
        """
        self._ahead = ahead
        self._notify = notify
        self._bugs = bugs
        self._fallbacks_step_in = fallbacks_step_in
        self._recovers = recovers
        self._sleep = sleep
        self._endpoints: list[PooledEndpoint] = []
        self.last_rank = 0
        """The rank of the last fallback."""
        self._waiting = WaitQueue()
        self._rooms = ResizableSemaphore(ahead)
        self._limits = 0
        self._is_working = False
        self._was_proven = False
        self._fatal: BackendError | None = None
        self._background = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._background.__aenter__()
        self._is_working = True
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        # without the run's own error, which it would wrap in a group
        await self._background.__aexit__(None, None, None)

    def __iter__(self) -> Iterator[PooledEndpoint]:
        return iter(self._endpoints)

    def add(self, endpoint: PooledEndpoint) -> None:
        """Send requests to this endpoint, too."""
        self._endpoints.append(endpoint)
        self.last_rank = max(endpoint.rank, self.last_rank)
        self.changed()

    def remove(self, endpoint: PooledEndpoint) -> None:
        """Send it no more requests; it finishes those it has."""
        endpoint.leaving = True
        self.changed()

    @property
    def waiting(self) -> int:
        """How many images wait for a slot."""
        return len(self._waiting)

    def has_others(self, endpoint: PooledEndpoint) -> bool:
        """Whether images go on without this endpoint: another one is or may be up, or a fallback is used."""
        return any(
            other.away is None and (self._fallbacks_step_in or other.rank <= endpoint.rank or other.is_open)
            for other in self._endpoints
            if other is not endpoint and not other.is_closed
        )

    @property
    def limit(self) -> int:
        """How many requests may be in flight now, at all endpoints in use together."""
        return sum(each.limit for each in self._endpoints if each.started or each.rank == 0)

    def most_rooms(self, most: int) -> int:
        """How many images can ever be on their way at once; an unidentified endpoint counts `most` slots."""
        limits = (each.limiter.most if each.is_identified else most for each in self._endpoints)
        return self._rooms_for(sum(limits))

    def _rooms_for(self, limit: int) -> int:
        return limit + max(self._ahead, min(limit, MOST_AHEAD))

    def room(self) -> AbstractAsyncContextManager[None]:
        """Hold a place for one image on its way, from its preparation to its record."""
        return self._rooms.place()

    def changed(self) -> None:
        """Act on a change: an endpoint came, went, or takes more or fewer requests at once."""
        limit = self.limit
        if limit != self._limits:
            self._limits = limit
            self._rooms.resize(self._rooms_for(limit))
            if self._is_working:
                self._notify(ConcurrencyChanged(concurrency=limit))
        self._waiting.wake_all()

    @asynccontextmanager
    async def slot(
        self, rank: int, crashes: CrashHistory, last: PooledEndpoint | None = None
    ) -> AsyncIterator[PooledEndpoint]:
        """Hold a slot of the first endpoint that is up and free, of this rank if one is up.

        `crashes` says before each choice whether the image must be alone at its endpoint, and raises if
        the image causes crashes. `last` is the endpoint that failed the image last: another one is preferred.

        Raises:
            BackendError: no endpoint is left, or the engine crashes because of the image.
        """
        endpoint, alone = await self._free_endpoint(rank, crashes, last)
        try:
            async with endpoint.limiter.slot(alone=alone):  # waits to be alone, or for --rpm
                if (
                    self._waiting and endpoint.limiter.free
                ):  # after one that was alone, several slots are free
                    self._wake_for(endpoint)
                yield endpoint
        finally:
            self._wake_for(endpoint)

    async def _free_endpoint(
        self, rank: int, crashes: CrashHistory, last: PooledEndpoint | None
    ) -> tuple[PooledEndpoint, bool]:
        waited = False
        try:
            while True:
                alone = crashes.must_be_alone()
                endpoint = self._choose(rank, last, alone=alone)
                if endpoint is not None:
                    return endpoint, alone
                await self._waiting.wait(rank, at_front=waited)
                waited = True
        except BaseException:  # the slot that this image was woken for goes to another one
            self._waiting.wake_all()
            raise

    def _wake_for(self, endpoint: PooledEndpoint) -> None:
        """Wake the first image that waits for this rank, else one that this fallback has to serve."""
        if not self._waiting.wake_one(lambda rank: rank == endpoint.rank) and endpoint.rank > 0:
            self._waiting.wake_one(
                lambda rank: rank < endpoint.rank and not self._is_any_open(rank, endpoint.rank)
            )

    def _is_any_open(self, rank: int, end: int) -> bool:
        """Whether an endpoint of these ranks, `end` excluded, takes requests."""
        return any(each.is_open and rank <= each.rank < end for each in self._endpoints)

    def _choose(self, rank: int, last: PooledEndpoint | None, *, alone: bool) -> PooledEndpoint | None:
        """An endpoint that is up and free; None if the image has to wait for one.

        An image that must be alone stops its endpoint for a while. So all such images go to the same
        endpoint, the one with the fewest answers.

        Raises:
            BackendError: no endpoint is left.
        """
        if self._fatal is not None:
            raise self._fatal
        tried: list[PooledEndpoint] = []
        for level in range(rank, self.last_rank + 1):
            endpoints = [each for each in self._endpoints if each.rank == level and not each.leaving]
            tried += endpoints
            for endpoint in endpoints:
                self._start(endpoint)
            up = [each for each in endpoints if each.is_open]
            if up and alone:
                return min(up, key=lambda each: each.answers)
            if up:
                free = [each for each in up if each.limiter.free]
                return min(free, key=lambda each: (each is last, each.limiter.share_in_use)) if free else None
            if any(each.away is None for each in endpoints):
                return None  # it is being proven
            if level == 0 and not self._fallbacks_step_in:
                break
        self._raise_if_over(tried, is_fallback=rank > 0)
        return None

    def _raise_if_over(self, endpoints: list[PooledEndpoint], *, is_fallback: bool) -> None:
        """Raise if it is no use to wait for one of these endpoints.

        An image that an endpoint refused does not wait for a fallback that is down: such images would take
        all rooms from the images that no endpoint refused.
        """
        if not all(each.end for each in endpoints):
            gone = [each.away for each in endpoints if each.away is not None and each.away.kind != "busy"]
            if not is_fallback or len(gone) < len(endpoints):
                return
            raise gone[0]
        # an endpoint that may come back decides the exit code: the next run can then process the rest
        ends = (each.end for each in endpoints if each.end)
        gone_for_good = UnavailableError(
            "no endpoint is left: --base-url names no endpoint any more; write a URL into its file"
        )
        raise max(ends, key=lambda end: end.exit_code, default=gone_for_good)

    def first_away(self) -> BackendError | None:
        """Why an endpoint of rank 0 is down, if all of them are."""
        first = [each for each in self._endpoints if each.rank == 0]
        if any(each.is_open for each in first):
            return None
        return next((each.away for each in first if each.away is not None), None)

    def answered(self, endpoint: PooledEndpoint) -> None:
        """Count an answer. In a run, each answer also makes the pool try lost endpoints again."""
        endpoint.answers += 1
        endpoint.breaker.answered()
        endpoint.limiter.answered()
        if self._recovers:  # _recover() tries them anyway
            return
        for other in self._endpoints:
            if other.end is not None and not other.is_closed:
                other.end = None
                self.in_background(self._prove, other, other.breaker.again)

    async def unavailable(self, endpoint: PooledEndpoint, error: UnavailableError, waits: int) -> None:
        """The endpoint was busy or down `waits` times for an image. Wait until the image may try again."""
        await self._wait_unless_down(endpoint, lambda: endpoint.breaker.unavailable(error, waits))

    async def failed(self, endpoint: PooledEndpoint, error: BackendError, cause: str) -> None:
        """A request failed in passing. Wait if its endpoint is up and wants a pause; see CircuitBreaker."""
        await self._wait_unless_down(endpoint, lambda: endpoint.breaker.failed(error, cause))

    async def _wait_unless_down(
        self, endpoint: PooledEndpoint, waiting: Callable[[], Awaitable[None]]
    ) -> None:
        """Wait as the circuit breaker says, but not for an endpoint that is down: another one may be up."""
        task = self.in_background(self._lose_on_error, endpoint, waiting)
        await asyncio.sleep(0)  # now the circuit breaker has judged the error
        if endpoint.breaker.up:
            await task
        else:
            self.changed()

    def prove_all(self) -> None:
        """Begin to prove all endpoints of rank 0; otherwise each is proven when the first image needs it."""
        for endpoint in self._endpoints:
            if endpoint.rank == 0:
                self._start(endpoint)

    def _start(self, endpoint: PooledEndpoint) -> None:
        if not endpoint.started:
            endpoint.started = True
            self.in_background(self._prove, endpoint, endpoint.breaker.ready)

    async def _prove(self, endpoint: PooledEndpoint, ready: Callable[[], Awaitable[None]]) -> None:
        await self._lose_on_error(endpoint, ready)
        if endpoint.end is None:
            endpoint.proven = self._was_proven = True
        self.changed()

    async def _lose_on_error(self, endpoint: PooledEndpoint, work: Callable[[], Awaitable[None]]) -> None:
        """Do work that may find the endpoint lost, or back."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # after a bug, images must not wait for this endpoint
            self.lose(endpoint, self._bugs.as_backend_error(error, endpoint.place))
        self.changed()

    def lose(self, endpoint: PooledEndpoint, error: BackendError) -> None:
        """The endpoint takes no requests any more. A fatal error before the first proof ends the run."""
        if endpoint.is_closed:
            return
        was_lost = endpoint.end is not None
        endpoint.end, endpoint.proven = error, False
        if isinstance(error, FatalBackendError):
            left = [other for other in self._endpoints if not other.is_closed]
            # a peer may accept the options
            may_go_on = error.kind == "bad_config" and any(other.rank == 0 for other in left)
            if endpoint.rank == 0 and not (self._was_proven or self._recovers or may_go_on):
                self._fatal = error
            elif left:
                tell(self._notify, f"{endpoint.place} gets no more images: {error}")
        if self._recovers and not was_lost:
            self.in_background(self._recover, endpoint)
        self.changed()

    async def _recover(self, endpoint: PooledEndpoint) -> None:
        """Prove a lost endpoint again and again; meanwhile its callers get the reason."""
        while endpoint.end is not None and not endpoint.leaving:
            await self._sleep(RECOVERY_S)
            try:
                await endpoint.breaker.renew()
            except Exception as error:  # noqa: BLE001  # after a bug, the next try may succeed
                endpoint.end = self._bugs.as_backend_error(error, endpoint.place)
            else:
                endpoint.end, endpoint.proven = None, True
            self.changed()

    def in_background(self, work: Callable[..., Awaitable[None]], *args: object) -> asyncio.Task[None]:
        """Run `work` in a task of its own, until it ends, finds a bug, or the pool is closed."""
        task = self._background.create_task(self._bugs.survived(work, *args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
