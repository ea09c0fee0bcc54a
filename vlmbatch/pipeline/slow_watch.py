"""Watches the preparation of one image, and names the image if it takes very long."""

import asyncio
import time

from vlmbatch.events import Notice
from vlmbatch.protocols import Observer

SLOW_S = 60.0


class SlowWatch:
    """Inside its ``with`` block, reports once if a thread works on an image for very long.

    The disk or the decoder may hang, and nothing else would show which of many images is the cause.
    """

    def __init__(self, image: str, notify: Observer, *, slow_s: float = SLOW_S) -> None:
        """The thread sets `began`, in monotonic seconds, when it begins."""
        self.began: float | None = None
        self._image = image
        self._notify = notify
        self._slow_s = slow_s

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._slow_s, self._report_if_slow)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _report_if_slow(self) -> None:
        left_s = self._slow_s if self.began is None else self.began + self._slow_s - time.monotonic()
        if left_s > 0:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._report_if_slow)
        else:
            told = f"still being read and decoded after {self._slow_s:g} s; to skip this image, add --exclude"
            self._notify(Notice(message=f"{self._image}: {told}"))
