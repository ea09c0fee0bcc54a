"""A semaphore whose number of places can change while they are taken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ResizableSemaphore:
    """A semaphore whose number of places can change. A taken place stays taken until it is left."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._free = asyncio.Semaphore(number)
        self._taken = 0
        self._owed = 0  # places to remove as they are left
        self.waiting = 0

    @property
    def free(self) -> bool:
        """Whether take() would return at once."""
        return self._taken < self._number and not self._free.locked()

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
        """Wait for a place; the caller must leave() it."""
        self.waiting += 1
        try:
            await self._free.acquire()
            while self._owed:  # a free place that is owed is removed by the first that takes it
                self._owed -= 1
                await self._free.acquire()
            self._taken += 1
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        """Return a place."""
        self._taken -= 1
        if self._owed:
            self._owed -= 1
        else:
            self._free.release()
