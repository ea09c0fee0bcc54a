"""A number of places that can change while they are taken; it does not know what for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ResizableSemaphore:
    """A semaphore whose number of places can be changed. Those that are taken stay so until they are left."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._free = asyncio.Semaphore(number)
        self._taken = 0
        self._owed = 0  # places to take away as they are left
        self.waiting = 0

    @property
    def free(self) -> bool:
        """Whether take() would give one at once."""
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
        """Wait for a place; whoever has one leaves it."""
        self.waiting += 1
        try:
            await self._free.acquire()
            while self._owed:  # free places are taken away by whoever finds them first
                self._owed -= 1
                await self._free.acquire()
            self._taken += 1
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        """Give a place back."""
        self._taken -= 1
        if self._owed:
            self._owed -= 1
        else:
            self._free.release()
