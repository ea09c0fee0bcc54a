"""Shows whether this client is the limit of a measurement: its use of a processor, and its delays."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

BEAT_S = 0.05


class ClientUse:
    """The work of the event loop since this object was made, without other threads, such as an engine."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._cpu_s = time.thread_time()
        self._late_s = 0.0

    @property
    def cpu(self) -> float:
        """The part of a processor core that the event loop used, 0 to 1."""
        return (time.thread_time() - self._cpu_s) / max(time.monotonic() - self._began, BEAT_S)

    @property
    def late(self) -> float:
        """The part of the time in which the event loop did not run although it had to, 0 to 1."""
        return self._late_s / max(time.monotonic() - self._began, BEAT_S)

    async def watch(self) -> None:
        """Look at short intervals how late the event loop is."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(BEAT_S)
            self._late_s += time.monotonic() - before - BEAT_S


@contextmanager
def measured_client() -> Iterator[ClientUse]:
    """Measure the client inside the ``with``, in an event loop."""
    use = ClientUse()
    watching = asyncio.create_task(use.watch())
    try:
        yield use
    finally:
        watching.cancel()
