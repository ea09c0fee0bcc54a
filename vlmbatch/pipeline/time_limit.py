"""The time limit of a run: a time of day (--until) or a duration (--max-duration)."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Self

from vlmbatch.config.run import RunOptions

LONGEST_WAIT_S = 30.0
"""The clock is read at least this often: it may be set, change to summer time, or sleep with its machine."""


class TimeLimit:
    """Inside its ``with`` block, in an event loop, `stop` is set when the time is over."""

    def __init__(
        self,
        options: RunOptions,
        stop: asyncio.Event,
        tell: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`tell` gets the reason; `clock` counts seconds, `now` is the local time of day."""
        self._options = options
        self._stop = stop
        self._tell = tell
        self._clock = clock
        self._now = now
        self._timer: asyncio.TimerHandle | None = None
        self._ends = None if options.max_duration is None else clock() + options.max_duration
        self._until = None if options.until is None else next_time(options.until, now())

    def __enter__(self) -> Self:
        if self._ends is not None or self._until is not None:
            self._look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Set `stop` if the time is over; else look again then, or after LONGEST_WAIT_S if that is sooner."""
        left = {}
        if self._until is not None:
            left[f"it is {self._options.until} (--until)"] = (self._until - self._now()).total_seconds()
        if self._ends is not None:
            left["the time of --max-duration is over"] = self._ends - self._clock()
        why, left_s = min(left.items(), key=lambda item: item[1])
        if left_s > 0:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(left_s, LONGEST_WAIT_S), self._look)
        elif not self._stop.is_set():
            self._tell(f"{why}: no new image starts; the next run does the rest")
            self._stop.set()


def next_time(text: str, now: datetime) -> datetime:
    """The next moment after `now` whose local time of day is `text`, HH:MM; without a time zone."""
    hour, minute = map(int, text.split(":"))
    today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return today if today > now else today + timedelta(days=1)
