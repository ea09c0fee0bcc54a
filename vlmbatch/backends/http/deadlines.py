"""How long requests may take at a server that may work on one after the other."""

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType


class _InFlight:
    """A request in flight: how many others were there at most, and how many answers it has seen.

    Its time is over at `_until`, in seconds of the event loop. The timer looks at that only when it fires,
    since to set it anew at every answer would cost more than all else that is done for a request.
    """

    __slots__ = ("_answers", "_deadline", "_in_flight", "_peers", "_seconds", "_timer", "_until")

    def __init__(self, in_flight: set["_InFlight"], seconds: float) -> None:
        self._in_flight = in_flight
        self._seconds = seconds
        self._deadline = asyncio.timeout(None)
        self._until = 0.0
        self._peers = 0
        self._answers = 0
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._deadline.__aenter__()
        self._until = asyncio.get_running_loop().time() + self._seconds
        self._check()
        peers = len(self._in_flight)
        self._in_flight.add(self)
        for each in self._in_flight:
            if each._peers < peers:
                each._peers = peers

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_flight.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        if kind is None:
            now = asyncio.get_running_loop().time()
            for each in self._in_flight:
                each._answers += 1
                if each._answers <= each._peers:
                    each._until = now + each._seconds
        await self._deadline.__aexit__(kind, error, trace)

    def _check(self) -> None:
        """End it, or look again when its time should be over."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._until:
            self._timer = loop.call_at(self._until, self._check)
        else:
            self._deadline.reschedule(self._until)


class Deadlines:
    """A deadline for each request, which starts anew when one is answered that it may have waited for.

    A server with fewer slots than requests lets the others wait in silence, for as long as those before
    them take, and in an order of its own. So a request has more time for as many answers as there were
    peers in flight with it, and no more: one that hangs still ends, also while peers are answered. A
    server that answers nobody, or trickles, ends them all at their deadline.
    """

    def __init__(self) -> None:
        self._in_flight: set[_InFlight] = set()

    def within(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """Raise TimeoutError in the ``async with`` once the request has had so many seconds of its own."""
        return _InFlight(self._in_flight, seconds)
