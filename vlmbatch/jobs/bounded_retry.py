"""Waits for a Redis that cannot be reached, up to a limit, and tells observers about it."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from vlmbatch.errors import QueueAwayError
from vlmbatch.events import EndpointPaused, EndpointResumed
from vlmbatch.protocols import Observer

T = TypeVar("T")
TRY_EVERY_S = 1.0


class BoundedRetry:
    """Repeats calls while Redis is away."""

    def __init__(
        self,
        place: str,
        notify: Observer,
        stop: asyncio.Event,
        *,
        patience_s: float,
        try_every_s: float = TRY_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`place` is the address of Redis without secrets. Setting `stop` ends the waiting."""
        self.patience_s = patience_s
        """How long, in seconds, Redis may be away."""
        self._place = place
        self._notify = notify
        self._stop = stop
        self._try_every_s = try_every_s
        self._clock = clock

    async def call(self, work: Callable[[], T]) -> T | None:
        """The result of `work` in a thread; None if `stop` was set while Redis was away.

        Raises:
            QueueAwayError: Redis was away for longer than `patience_s`.
        """
        began: float | None = None
        while True:
            try:
                result = await asyncio.to_thread(work)
            except QueueAwayError as error:
                if began is None:
                    began = self._clock()
                    self._paused(error)
                if self._clock() - began >= self.patience_s:
                    raise
                if await pause(self._stop, self._try_every_s):
                    return None
            else:
                if began is not None:
                    away_s = self._clock() - began
                    self._notify(EndpointResumed(paused_s=away_s, endpoint=self._place))
                return result

    def _paused(self, error: QueueAwayError) -> None:
        if self.patience_s:
            self._notify(EndpointPaused(message=str(error), give_up_s=self.patience_s, endpoint=self._place))


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for this long, or until `stop` is set; returns whether it is."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
