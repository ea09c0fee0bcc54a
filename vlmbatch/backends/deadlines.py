"""How long requests may take at a server that may work on one after the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Deadlines:
    """A deadline for each request, which starts anew when one that was sent before it is answered.

    A server with fewer slots than requests lets the others wait in silence, for as long as those before
    them take. One that answers nobody, or trickles, ends them all at their deadline.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Timeout, float]] = []

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError in the ``async with`` once the request has had so many seconds of its own."""
        async with asyncio.timeout(seconds) as deadline:
            mine = (deadline, seconds)
            self._waiting.append(mine)
            try:
                yield
                self._start_anew_after(mine)
            finally:
                self._waiting.remove(mine)

    def _start_anew_after(self, answered: tuple[asyncio.Timeout, float]) -> None:
        now = asyncio.get_running_loop().time()
        for deadline, seconds in self._waiting[self._waiting.index(answered) + 1 :]:
            if not deadline.expired():
                deadline.reschedule(now + seconds)
