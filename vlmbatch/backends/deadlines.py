"""How long requests may take at a server that may work on one after the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request in flight: how many others were there at most, and how many answers it has seen."""

    deadline: asyncio.Timeout
    seconds: float
    others: int = 0
    answers: int = 0


class Deadlines:
    """A deadline for each request, which starts anew when one is answered that it may have waited for.

    A server with fewer slots than requests lets the others wait in silence, for as long as those before
    them take, and in an order of its own. So a request has more time for as many answers as there were
    others in flight with it, and no more: one that hangs still ends, also while others are answered. A
    server that answers nobody, or trickles, ends them all at their deadline.
    """

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError in the ``async with`` once the request has had so many seconds of its own."""
        async with asyncio.timeout(seconds) as deadline:
            mine = _Waiting(deadline, seconds)
            self._waiting.append(mine)
            for each in self._waiting:
                each.others = max(each.others, len(self._waiting) - 1)
            answered = False
            try:
                yield
                answered = True
            finally:
                self._waiting.remove(mine)
                if answered:
                    self._give_time()

    def _give_time(self) -> None:
        now = asyncio.get_running_loop().time()
        for each in self._waiting:
            each.answers += 1
            if each.answers <= each.others and not each.deadline.expired():
                each.deadline.reschedule(now + each.seconds)
