"""Puts the clock of an event loop forward: a time limit can be long, and yet no test waits for its end.

Only what waits in the event loop sees it: deadlines, timeouts and timers, but not `time.monotonic`.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from endpoint import Endpoint


class LoopClock:
    """The clock of the running event loop, which can skip seconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ahead = 0.0
        time = self._loop.time
        self._loop.time = lambda: time() + self._ahead  # type: ignore[method-assign]

    def skip(self, seconds: float) -> None:
        """Let this many seconds pass at once; only on the loop itself."""
        self._ahead += seconds

    def skip_soon(self, seconds: float) -> None:
        """The same, from any thread."""
        self._loop.call_soon_threadsafe(self.skip, seconds)


@contextmanager
def skipping(endpoint: Endpoint, seconds: float) -> Iterator[LoopClock]:
    """Skip this many seconds as soon as a request hangs at the endpoint.

    A request that does not hang has all of its time limit, however slow the machine is. Other requests that
    are in flight at the moment of the skip lose the time, too.
    """
    clock = LoopClock()
    endpoint.on_hang = lambda: clock.skip_soon(seconds)
    try:
        yield clock
    finally:
        endpoint.on_hang = lambda: None
