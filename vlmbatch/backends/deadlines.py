"""How long requests may take at a server that may work on one after the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request in flight: how many others were there at most, and how many answers it has seen.

    Its time is over at `until`, in seconds of the event loop. The timer looks at that only when it fires,
    since to set it anew at every answer would cost more than all else that is done for a request.
    """

    deadline: asyncio.Timeout
    seconds: float
    until: float
    others: int = 0
    answers: int = 0
    timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """End it, or look again when its time should be over."""
        loop = asyncio.get_running_loop()
        if loop.time() < self.until:
            self.timer = loop.call_at(self.until, self.look)
        else:
            self.deadline.reschedule(self.until)


class Deadlines:
    """A deadline for each request, which starts anew when one is answered that it may have waited for.

    A server with fewer slots than requests lets the others wait in silence, for as long as those before
    them take, and in an order of its own. So a request has more time for as many answers as there were
    others in flight with it, and no more: one that hangs still ends, also while others are answered. A
    server that answers nobody, or trickles, ends them all at their deadline.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError in the ``async with`` once the request has had so many seconds of its own."""
        async with asyncio.timeout(None) as deadline:
            now = asyncio.get_running_loop().time()
            mine = _Waiting(deadline, seconds, now + seconds)
            mine.look()
            self._waiting[id(mine)] = mine
            others = len(self._waiting) - 1
            for each in self._waiting.values():
                each.others = max(each.others, others)
            answered = False
            try:
                yield
                answered = True
            finally:
                del self._waiting[id(mine)]
                if mine.timer is not None:
                    mine.timer.cancel()
                if answered:
                    self._give_time()

    def _give_time(self) -> None:
        now = asyncio.get_running_loop().time()
        for each in self._waiting.values():
            each.answers += 1
            if each.answers <= each.others:
                each.until = now + each.seconds
