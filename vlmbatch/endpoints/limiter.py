"""The limiter: how many requests may be in flight at one endpoint, and how often one may start."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from vlmbatch.endpoints.adaptive import AdaptiveLimit, BackoffLimit
from vlmbatch.endpoints.semaphore import ResizableSemaphore
from vlmbatch.protocols import Sleep

QUEUE_SHARE = 8
"""One in this many requests may queue at the endpoint, so that its next one is at hand."""


class RateLimiter:
    """Spaces attempts evenly over a minute, for all endpoints that share it."""

    def __init__(
        self,
        rpm: float | None = None,
        *,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rpm` is in attempts a minute, None for no limit; `sleep` and `clock` are in seconds."""
        self._spacing_s = 60 / rpm if rpm else 0.0
        self._sleep = sleep
        self._clock = clock
        self._next_start = 0.0

    @property
    def is_behind(self) -> bool:
        """Whether attempts wait for their turn, although slots may be free."""
        return self._next_start > self._clock()

    async def turn(self) -> None:
        """Wait until the next attempt may start."""
        if not self._spacing_s:
            return
        now = self._clock()
        start = max(self._next_start, now)
        self._next_start = start + self._spacing_s
        if start > now:
            await self._sleep(start - now)


class Limiter:
    """Slots for requests, in a fixed or an adaptive number. A slot is held for an attempt and its turn."""

    def __init__(
        self,
        limit: int,
        *,
        most: int | None = None,
        known_limit: int | None = None,
        pace: RateLimiter | None = None,
        waiting: Callable[[], bool] = lambda: False,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """It starts with `limit` slots; they adapt up to `most`. If that is None they are fixed, and fewer
        only while the endpoint is busy. `known_limit`: see AdaptiveLimit.

        `waiting` says whether an image waits for a slot at any endpoint; `changed` is called for each new
        limit; `clock` is in seconds.
        """
        self._rule = BackoffLimit(limit) if most is None else AdaptiveLimit(limit, most, known_limit)
        self._limit = self._rule.limit
        self._pace = pace or RateLimiter()
        self._waiting = waiting
        self._changed = changed
        self._clock = clock
        self._slots = ResizableSemaphore(self._limit)
        self._busy = 0
        self._is_alone = False
        self._alone = asyncio.Lock()
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._old_requests = 0

    @property
    def most(self) -> int:
        """The largest number of requests that may ever be in flight."""
        return self._rule.most

    @property
    def best(self) -> int | None:
        """The best number of slots so far, if they adapt; None until it is found."""
        return self._rule.best

    @property
    def in_flight(self) -> int:
        """How many requests are in flight."""
        return self._busy + self._is_alone

    @property
    def share_in_use(self) -> float:
        """The share of the slots that is taken, from 0 to 1."""
        return self._busy / self._limit

    @property
    def free(self) -> bool:
        """Whether a slot is free; with --rpm its request may still have to wait."""
        return self._open.is_set() and self._slots.free

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return self._limit

    @asynccontextmanager
    async def slot(self, *, alone: bool = False) -> AsyncIterator[None]:
        """Hold one slot inside the ``async with``; `alone`: while no other request holds one."""
        if alone:
            async with self._alone:
                self._open.clear()
                try:
                    await self._empty.wait()
                    await self._pace.turn()
                    self._is_alone = True
                    yield
                finally:
                    self._is_alone = False
                    self._open.set()
            return
        await self._take_slot()
        try:
            await self._pace.turn()
            yield
        finally:
            self._leave_slot()

    async def _take_slot(self) -> None:
        while True:
            await self._open.wait()
            await self._slots.take()
            if self._open.is_set():
                break
            self._slots.leave()  # another request wants to be alone since
        self._busy += 1
        self._empty.clear()

    def _leave_slot(self) -> None:
        self._slots.leave()
        self._busy -= 1
        self._old_requests = max(self._old_requests - 1, 0)
        if not self._busy:
            self._empty.set()

    def answered(self) -> None:
        """A request was answered; its slot is still held."""
        full = self._slots.waiting > 0 or self._waiting()
        self._rule.answered(self._clock(), waiting=full and not self._pace.is_behind)
        self._follow(self._rule.limit)

    def overloaded(self, *, is_busy: bool = True) -> None:
        """The endpoint was overloaded, and with `is_busy` it says so.

        Requests that were in flight together halve the limit once.
        """
        if self._old_requests or not (is_busy or self._rule.adapts):
            return
        self._old_requests = self._busy
        self._rule.overloaded()
        self._follow(self._rule.limit)

    def queueing(self, waiting: int) -> None:
        """`waiting` requests queue at the endpoint: more of them would only wait longer."""
        spare = max(self._limit // QUEUE_SHARE, 1)
        if self._rule.adapts and waiting > spare:
            self._rule.queueing(min(waiting, self._busy) - spare)
            self._follow(self._rule.limit)

    def _follow(self, limit: int) -> None:
        if limit != self._limit:
            self._limit = limit
            self._slots.resize(limit)
            self._changed()
