"""Puts the clock of an event loop forward: a time limit can be long, and yet no test waits for its end.

Only what waits in the event loop sees it: deadlines, timeouts and timers, but not `time.monotonic`.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from endpoint import Endpoint

STEP_S = 0.1


class LoopClock:
    """The clock of the running event loop, which can skip seconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ahead = 0.0
        self._passes = True
        time = self._loop.time
        self._loop.time = lambda: time() + self._ahead  # type: ignore[method-assign]

    def skip(self, seconds: float) -> None:
        """Let this many seconds pass at once; only on the loop itself."""
        self._ahead += seconds

    def pass_soon(self, seconds: float) -> Future[None]:
        """Move the clock forward by this many seconds in small steps; any thread may call it.

        Small steps make no timer late. The future is done when the seconds have passed, or after stop().
        """
        passed: Future[None] = Future()
        self._loop.call_soon_threadsafe(self._pass, seconds, passed)
        return passed

    def stop(self) -> None:
        """Let no more time pass: the end of the loop has time limits, too."""
        self._passes = False

    def _pass(self, seconds: float, passed: Future[None]) -> None:
        if not self._passes or seconds <= 0:
            passed.set_result(None)
            return
        self._ahead += min(seconds, STEP_S)
        self._loop.call_soon(self._pass, seconds - STEP_S, passed)


@contextmanager
def skipping(endpoint: Endpoint, seconds: float) -> Iterator[LoopClock]:
    """Skip this many seconds as soon as a request hangs at the endpoint.

    A request that does not hang has all of its time limit, however slow the machine is. Other requests that
    are in flight at the moment of the skip lose the time, too.
    """
    clock = LoopClock()
    endpoint.on_hang = lambda: clock.pass_soon(seconds)
    try:
        yield clock
    finally:
        endpoint.on_hang = lambda: None
        clock.stop()
