"""The warnings of a session."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlmbatch.errors import VlmbatchWarning
from vlmbatch.observers.notices import Line, Notices


class SessionWarnings:
    """Shows notices of a session as warnings, in the thread of its event loop.

    A filter may turn a warning into an exception. This must not end the call during which it was raised,
    since that call may belong to any caller. So it cancels the task of the session, which raises it.
    """

    def __init__(self, line: Line) -> None:
        """Warnings refer to `line`."""
        self.notices = Notices()
        self._line = line
        self._task: asyncio.Task[Any] | None = None
        self._raised: VlmbatchWarning | None = None

    def warn(self, notice: str) -> None:
        """Show this notice as a warning."""
        try:
            self._line.warn(notice)
        except VlmbatchWarning as warning:
            self._raised = self._raised or warning.with_traceback(None)
            if self._task is not None:
                self._task.cancel()

    @contextmanager
    def raising_in_this_task(self) -> Iterator[None]:
        """This task is that of the session; raise the exception at the end, or if the task is cancelled."""
        self._task = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            self.raise_pending()
            raise
        self.raise_pending()

    def raise_pending(self) -> None:
        """Raise the warning that a filter turned into an exception, if there is one."""
        if self._raised is not None:
            if self._task is not None:
                self._task.uncancel()
            raise self._raised
