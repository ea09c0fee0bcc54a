"""The endpoints of a run: an image goes to one that is free, or to a fallback where none of them is there."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.semaphore import ResizableSemaphore
from vlmbatch.errors import BackendError, FatalBackendError, UnavailableError
from vlmbatch.events import ConcurrencyChanged, tell
from vlmbatch.guard_protocols import PooledEndpoint as AnyEndpoint
from vlmbatch.protocols import Observer

MOST_AHEAD = 64
"""So many images at most wait for a slot; else as many as there are slots, since answers come in bursts."""


class EndpointPool:
    """See guard_protocols.EndpointPool. Proofs and probes go on beside the run, in tasks of their own."""

    def __init__(self, *, ahead: int, notify: Observer, steps_in: bool = False) -> None:
        """`ahead` is how many more images than slots may at least be on their way; `steps_in` says whether
        fallbacks are asked while all before them are away.
        """
        self._ahead = ahead
        self._notify = notify
        self._steps_in = steps_in
        self._lanes: list[PooledEndpoint] = []
        self.last_rank = 0
        """See guard_protocols.EndpointPool."""
        self._waiting = WaitQueue()
        self._rooms = ResizableSemaphore(ahead)
        self._limits = 0
        self._at_work = False
        self._was_proven = False
        self._over: BackendError | None = None
        self._beside = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._beside.__aenter__()
        self._at_work = True
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._beside.__aexit__(None, None, None)  # which would make a group of the run's own error

    def __iter__(self) -> Iterator[PooledEndpoint]:
        return iter(self._lanes)

    def add(self, lane: PooledEndpoint) -> None:
        """Ask this endpoint, too."""
        self._lanes.append(lane)
        self.last_rank = max(lane.rank, self.last_rank)
        self.changed()

    def leave(self, lane: PooledEndpoint) -> None:
        """Ask it no more; what is in flight there is finished."""
        lane.leaving = True
        self.changed()

    @property
    def somebody_waits(self) -> bool:
        """Whether an image waits for a slot."""
        return bool(self._waiting)

    def somebody_besides(self, lane: PooledEndpoint) -> bool:
        """Whether images go on without this endpoint: another one is there, or a fallback may step in."""
        return any(
            other.is_open or (self._steps_in and other.rank > lane.rank and other.away is None)
            for other in self._lanes
            if other is not lane and not other.is_closed
        )

    @property
    def limit(self) -> int:
        """How many requests may be in flight now, at all that are asked."""
        return sum(lane.limit for lane in self._lanes if lane.started or lane.rank == 0)

    def most_rooms(self, most: int) -> int:
        """How many images can ever be on their way at once; `most` slots has who is not met yet."""
        return self._room_for(sum(lane.slots.most if lane.is_met else most for lane in self._lanes))

    @asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """Hold a place for one image on its way, from its preparation to its record."""
        async with self._rooms.place():
            yield

    def changed(self) -> None:
        """Look at everything anew: an endpoint has come, gone, or takes more or less at once."""
        limit = self.limit
        if limit != self._limits:
            self._limits = limit
            self._rooms.resize(self._room_for(limit))
            if self._at_work:
                self._notify(ConcurrencyChanged(concurrency=limit))
        self._waiting.wake_all()

    def _room_for(self, limit: int) -> int:
        return limit + max(self._ahead, min(limit, MOST_AHEAD))

    @asynccontextmanager
    async def turn(
        self, rank: int, look: Callable[[], bool], last: AnyEndpoint | None = None
    ) -> AsyncIterator[PooledEndpoint]:
        """See guard_protocols.EndpointPool."""
        lane, alone = await self._next(rank, look, last)
        try:
            async with lane.slots.slot(alone=alone):  # without waiting, but to be alone
                if self._waiting and lane.slots.free:
                    self._wake_for(lane)  # as after one who was alone: more than one slot came free
                yield lane
        finally:
            self._wake_for(lane)

    async def _next(
        self, rank: int, look: Callable[[], bool], last: AnyEndpoint | None
    ) -> tuple[PooledEndpoint, bool]:
        waited = False
        try:
            while True:
                alone = look()
                lane = self._free_one(rank, last, alone=alone)
                if lane is not None:
                    return lane, alone
                await self._waiting.wait(rank, first=waited)
                waited = True
        except BaseException:  # cancelled, refused or given up: who was woken for a slot leaves it to others
            self._waiting.wake_all()
            raise

    def _wake_for(self, lane: PooledEndpoint) -> None:
        """Wake the first who waits for a slot of this rank, else one whom a fallback has to do for."""
        if not self._waiting.wake_one(lambda rank: rank == lane.rank) and lane.rank > 0:
            self._waiting.wake_one(lambda rank: rank < lane.rank and not self._is_open(rank, lane.rank))

    def _is_open(self, rank: int, end: int) -> bool:
        """Whether anybody is there from this rank on, before the other."""
        return any(lane.is_open and rank <= lane.rank < end for lane in self._lanes)

    def _free_one(self, rank: int, last: AnyEndpoint | None, *, alone: bool) -> PooledEndpoint | None:
        """An endpoint that is there and free; None where one is to be waited for.

        Those who have to be alone, which takes a while, share the one that has answered least.

        Raises:
            BackendError: nobody is left to be asked.
        """
        if self._over is not None:
            raise self._over
        looked_at: list[PooledEndpoint] = []
        for level in range(rank, self.last_rank + 1):
            lanes = [lane for lane in self._lanes if lane.rank == level and not lane.leaving]
            looked_at += lanes
            for lane in lanes:
                self._start(lane)
            there = [lane for lane in lanes if lane.is_open]
            if there and alone:
                return min(there, key=lambda lane: lane.answers)
            if there:
                free = [lane for lane in there if lane.slots.free]
                return min(free, key=lambda lane: (lane is last, lane.slots.load)) if free else None
            if any(lane.away is None for lane in lanes):
                return None  # it is being proven
            if level == 0 and not self._steps_in:
                break
        self._raise_if_over(looked_at, is_fallback=rank > 0)
        return None

    def _raise_if_over(self, lanes: list[PooledEndpoint], *, is_fallback: bool) -> None:
        """Raise where none of these is to be waited for.

        Images that are refused do not wait for a fallback that is away, since those that nobody refused
        would find no room any more.
        """
        if not all(lane.end for lane in lanes):
            gone = [lane.away for lane in lanes if lane.away is not None and lane.away.kind != "busy"]
            if not is_fallback or len(gone) < len(lanes):
                return
            raise gone[0]
        # who may come back decides the exit code: what is left can then be asked later
        ends = sorted((lane.end for lane in lanes if lane.end), key=lambda end: end.exit_code, reverse=True)
        raise next(iter(ends), UnavailableError("no endpoint is left: --base-url names none any more"))

    def first_away(self) -> BackendError | None:
        """See guard_protocols.EndpointPool."""
        first = [lane for lane in self._lanes if lane.rank == 0]
        if any(lane.is_open for lane in first):
            return None
        return next((lane.away for lane in first if lane.away is not None), None)

    def answered(self, lane: AnyEndpoint) -> None:
        """It answered; while one answers, those that were given up are looked for anew."""
        assert isinstance(lane, PooledEndpoint)
        lane.answers += 1
        lane.outages.answered()
        lane.slots.answered()
        for other in self._lanes:
            if other.end is not None and not other.is_closed:
                other.end = None
                self.beside(self._prove(other, other.outages.again))

    async def unavailable(self, lane: AnyEndpoint, error: UnavailableError, waits: int) -> None:
        """See guard_protocols.EndpointPool."""
        await self._unless_away(lane, lambda: lane.outages.unavailable(error, waits))

    async def failed(self, lane: AnyEndpoint, error: BackendError, image: str) -> None:
        """See guard_protocols.EndpointPool."""
        await self._unless_away(lane, lambda: lane.outages.failed(error, image))

    async def _unless_away(self, lane: AnyEndpoint, waiting: Callable[[], Awaitable[None]]) -> None:
        """Wait with the image, but not for an endpoint that is away: others may be there."""
        assert isinstance(lane, PooledEndpoint)
        task = self.beside(self._guarded(lane, waiting))
        await asyncio.sleep(0)  # now it is known what the outage makes of it
        if lane.outages.up:
            await task
        else:
            self.changed()

    def closed(self, lane: AnyEndpoint, error: BackendError) -> None:
        """See guard_protocols.EndpointPool."""
        assert isinstance(lane, PooledEndpoint)
        self._ended(lane, error)

    def _start(self, lane: PooledEndpoint) -> None:
        """Begin to prove it, once somebody wants to ask it."""
        if not lane.started:
            lane.started = True
            self.beside(self._prove(lane, lane.outages.ready))

    async def _prove(self, lane: PooledEndpoint, ready: Callable[[], Awaitable[None]]) -> None:
        await self._guarded(lane, ready)
        if lane.end is None:
            lane.proven = self._was_proven = True
        self.changed()

    async def _guarded(self, lane: PooledEndpoint, work: Callable[[], Awaitable[None]]) -> None:
        """Do what may find out that it is there no more, or is back."""
        try:
            await work()
        except BackendError as error:
            self._ended(lane, error)
        self.changed()

    def _ended(self, lane: PooledEndpoint, error: BackendError) -> None:
        """It takes no requests any more. What was wrong from the beginning ends the run at once."""
        if lane.is_closed:
            return
        lane.end, lane.proven = error, False
        if isinstance(error, FatalBackendError):
            if lane.rank == 0 and not self._was_proven:
                self._over = error
            elif any(not other.is_closed for other in self._lanes):
                tell(self._notify, f"{lane.place} is asked no more: {error}")
        self.changed()

    def beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this beside the run, until it ends or the run does."""
        task = self._beside.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class WaitQueue:
    """Whoever is woken looks around, and waits again, at the head of the line, where there is nothing."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait(self, rank: int, *, first: bool) -> None:
        """Wait to be woken, for a slot of this rank; who was woken for nothing comes `first`."""
        waiting = asyncio.get_running_loop().create_future(), rank
        (self._waiting.appendleft if first else self._waiting.append)(waiting)
        try:
            await waiting[0]
        except asyncio.CancelledError:
            with suppress(ValueError):  # who was woken was taken out
                self._waiting.remove(waiting)
            raise

    def wake_all(self) -> None:
        """Let everybody look around."""
        waiting, self._waiting = self._waiting, deque()
        for woken, _ in waiting:
            if not woken.done():
                woken.set_result(None)

    def wake_one(self, suits: Callable[[int], bool]) -> bool:
        """Wake the first whose rank suits; whether there is one."""
        waiting = enumerate(self._waiting)
        at = next((at for at, (woken, rank) in waiting if suits(rank) and not woken.done()), None)
        if at is None:
            return False
        woken, _ = self._waiting[at]
        del self._waiting[at]
        woken.set_result(None)
        return True
