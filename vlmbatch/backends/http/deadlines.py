"""Deadlines of requests to a server that may process them one after the other."""

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType

PAUSE_S = 0.5
"""If a timer fires this many seconds late, the process was paused: it was stopped, or the machine slept. The
event loop itself is late by milliseconds."""


class _InFlight:
    """A request in flight, with the peak number of its peers and the number of answers it has seen.

    Its time is over at `_until`, in seconds of the event loop. The timer checks that only when it fires: a
    new timer at every answer would cost more than all other work for a request.

    After a pause of the process, the answer may still be unread in the socket, and the endpoint may have been
    paused, too. So after the first pause, the request gets its whole time again.
    """

    __slots__ = ("_answers", "_deadline", "_in_flight", "_paused", "_peers", "_seconds", "_timer", "_until")

    def __init__(self, in_flight: set["_InFlight"], seconds: float) -> None:
        self._in_flight = in_flight
        self._seconds = seconds
        self._deadline = asyncio.timeout(None)
        self._until = 0.0
        self._peers = 0
        self._answers = 0
        self._paused = False
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
        """End the request if its time is over, else check again when it should be."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._timer is not None and not self._paused and now - self._timer.when() > PAUSE_S:
            self._paused, self._until = True, now + self._seconds
        if now < self._until:
            self._timer = loop.call_at(self._until, self._check)
        else:
            self._deadline.reschedule(self._until)


class Deadlines:
    """A deadline for each request, which restarts when a request is answered that may have been ahead.

    A server with fewer slots than requests queues the rest in silence and in its own order. So a request
    gets its time again for each answer, but at most as often as it had peers in flight: a request that
    hangs still ends while its peers are answered. If the server answers no request, or trickles, all end at
    their deadline.
    """

    def __init__(self) -> None:
        self._in_flight: set[_InFlight] = set()

    def within(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """Raise TimeoutError in the ``async with`` after `seconds` of the request's own time."""
        return _InFlight(self._in_flight, seconds)


def single_deadline(seconds: float) -> AbstractAsyncContextManager[None]:
    """Raise TimeoutError in the ``async with`` after `seconds`, for a request that does not queue."""
    return _InFlight(set(), seconds)
