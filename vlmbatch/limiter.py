"""How many requests may be in flight; it does not know what a request is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Limiter:
    """A fixed number of slots. A slot is held for one attempt, never while waiting."""

    def __init__(self, limit: int) -> None:
        """`limit` is how many requests the endpoint gets at once, at least 1."""
        self.limit = limit
        self._slots = asyncio.Semaphore(limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a free slot and hold it inside the ``async with``."""
        async with self._slots:
            yield
