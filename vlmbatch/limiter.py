"""How many requests may be in flight, and images on their way; it does not know what a request is."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from vlmbatch.climbing import Climber
from vlmbatch.protocols import Sleep

MOST_AHEAD = 64
"""So many images at most wait for a slot; else as many as there are slots, since answers come in bursts."""


class Places:
    """A semaphore whose number of places can be changed. Those that are taken stay so until they are left."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._free = asyncio.Semaphore(number)
        self._owed = 0  # places to take away as they are left
        self.waiting = 0

    def resize(self, number: int) -> None:
        """Have this many places from now on."""
        more, self._number = number - self._number, number
        for _ in range(more):
            if self._owed:
                self._owed -= 1
            else:
                self._free.release()
        self._owed += max(-more, 0)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and hold it inside the ``async with``."""
        await self.take()
        try:
            yield
        finally:
            self.leave()

    async def take(self) -> None:
        """Wait for a place; whoever has one leaves it."""
        self.waiting += 1
        try:
            await self._free.acquire()
            while self._owed:  # free places are taken away by whoever finds them first
                self._owed -= 1
                await self._free.acquire()
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        """Give a place back."""
        if self._owed:
            self._owed -= 1
        else:
            self._free.release()


class Limiter:
    """Slots for requests, fixed in number or adapting. Each is held for an attempt and its turn."""

    def __init__(
        self,
        limit: int,
        *,
        most: int | None = None,
        rpm: float | None = None,
        ahead: int = 0,
        changed: Callable[[int], None] = lambda limit: None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit` slots to begin with; they adapt up to `most`, or are fixed where that is None.

        `rpm` spaces attempts evenly, so many a minute; `ahead` is how many more images than slots may at
        least be on their way; `changed` hears each new limit; `sleep` and `clock` are in seconds.
        """
        self._climber = None if most is None else Climber(limit, most)
        self._limit = limit
        self._ahead = ahead
        self._spacing_s = 60 / rpm if rpm else 0.0
        self._changed = changed
        self._sleep = sleep
        self._clock = clock
        self._next_start = 0.0
        self._slots = Places(limit)
        self._rooms = Places(self._room_for(limit))
        self._busy = 0
        self._alone = asyncio.Lock()
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._old_requests = 0

    @property
    def most_rooms(self) -> int:
        """How many images can ever be on their way at once."""
        return self._room_for(self._climber.most if self._climber else self._limit)

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return self._limit

    @asynccontextmanager
    async def slot(self, *, alone: bool = False) -> AsyncIterator[None]:
        """Hold one slot inside the ``async with``; `alone` while nobody else holds one."""
        if alone:
            async with self._alone:
                self._open.clear()
                try:
                    await self._empty.wait()
                    await self._turn()
                    yield
                finally:
                    self._open.set()
            return
        await self._take_slot()
        try:
            await self._turn()
            yield
        finally:
            self._leave_slot()

    async def _take_slot(self) -> None:
        while True:
            await self._open.wait()
            await self._slots.take()
            if self._open.is_set():
                break
            self._slots.leave()  # somebody wants to be alone since
        self._busy += 1
        self._empty.clear()

    def _leave_slot(self) -> None:
        self._slots.leave()
        self._busy -= 1
        self._old_requests = max(self._old_requests - 1, 0)
        if not self._busy:
            self._empty.set()

    @asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """Hold a place for one image on its way, from its preparation to its record."""
        async with self._rooms.place():
            yield

    def answered(self) -> None:
        """Hear that a request was answered, while its slot is still held."""
        if self._climber is not None:
            now = self._clock()
            is_spaced = self._next_start > now  # then a turn is waited for, which no slot would bring
            self._climber.answered(now, waiting=self._slots.waiting > 0 and not is_spaced)
            self._follow(self._climber.limit)

    def overloaded(self) -> None:
        """Hear that the endpoint had too much. Requests that were in flight together halve the limit once."""
        if self._climber is None or self._old_requests:
            return
        self._old_requests = self._busy
        self._climber.overloaded()
        self._follow(self._climber.limit)

    def _follow(self, limit: int) -> None:
        if limit != self._limit:
            self._limit = limit
            self._slots.resize(limit)
            self._rooms.resize(self._room_for(limit))
            self._changed(limit)

    def _room_for(self, limit: int) -> int:
        return limit + max(self._ahead, min(limit, MOST_AHEAD))

    async def _turn(self) -> None:
        """Wait until the next attempt may start."""
        if not self._spacing_s:
            return
        now = self._clock()
        start = max(self._next_start, now)
        self._next_start = start + self._spacing_s
        if start > now:
            await self._sleep(start - now)
