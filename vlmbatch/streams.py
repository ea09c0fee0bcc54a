"""Text streams for messages to the user: one never fails, the other also never blocks."""

import os
import sys
import threading
from collections import deque
from contextlib import AbstractContextManager, suppress
from typing import TextIO, cast

MOST_WAITING = 10_000
"""The most texts that wait for a slow reader; further texts are dropped."""
PATIENCE_S = 2.0
"""How long closing a stream waits for its reader."""


class LossyStream:
    """A text stream that drops a text it cannot write, so that no run fails over a closed reader."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._abandoned = False
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write the text, or drop it if the reader or terminal is gone or the disk is full."""
        if not self._abandoned:
            with suppress(OSError):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush; errors are ignored."""
        if not self._abandoned:
            with suppress(OSError):
                self._stream.flush()

    def abandon(self) -> None:
        """Drop all texts from now on.

        A thread that is blocked in write() holds the lock of Python's buffer, and flush() would wait for it.
        """
        self._abandoned = True

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()


class BackgroundStream(LossyStream):
    """A stream with a writing thread, so that a slow or stopped reader blocks nothing else.

    Otherwise a terminal halted with Ctrl-S, or a full pipe, would block the event loop and its signals.
    """

    def __init__(self, stream: TextIO, *, most: int = MOST_WAITING) -> None:
        """At most `most` texts wait for the thread."""
        super().__init__(stream)
        self.dropped = 0
        self._most = most
        self._waiting: deque[str] = deque()
        self._accepted = 0
        self._written = 0
        self._changed = threading.Condition()  # uses an RLock: a signal may interrupt write()
        self._closed = False
        self._thread = threading.Thread(target=self._keep_writing, name="vlmbatch-stderr", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue the text for the thread, or drop it if the queue is full."""
        with self._changed:
            if not self.is_full:
                self._waiting.append(text)
                self._accepted += 1
                self._changed.notify_all()
            else:
                self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread flushes each text."""

    @property
    def is_full(self) -> bool:
        """Whether the next text would be dropped."""
        return len(self._waiting) >= self._most

    def wait(self) -> None:
        """Wait until all texts so far are written."""
        with self._changed:
            accepted = self._accepted
            self._changed.wait_for(lambda: self._written >= accepted)

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until all texts are written, or `patience_s` seconds have passed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(patience_s)
        if self._thread.is_alive() and isinstance(self._stream, LossyStream):
            self._stream.abandon()

    def _keep_writing(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                texts = list(self._waiting)
                self._waiting.clear()
                if not texts and self._closed:
                    return
            super().write("".join(texts))
            super().flush()
            with self._changed:
                self._written += len(texts)
                self._changed.notify_all()


class CurrentStderr:
    """A text stream that writes each text to the current sys.stderr.

    While a bar is drawn, rich replaces sys.stderr, and texts appear above the bar.
    """

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        """`lock` is held while a text is written, and also while a bar begins or ends."""
        self._lock = lock

    @property
    def encoding(self) -> str | None:
        """The encoding of standard error; None without one, and while rich replaces it."""
        return getattr(sys.stderr, "encoding", None)

    def write(self, text: str) -> int:
        """Write the text, unless the program has closed or removed standard error."""
        with self._lock:
            return sys.stderr.write(text) if self._is_open() else len(text)

    def flush(self) -> None:
        """Flush standard error."""
        with self._lock:
            if self._is_open():
                sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether standard error is a terminal."""
        return self._is_open() and sys.stderr.isatty()

    @staticmethod
    def _is_open() -> bool:
        return sys.stderr is not None and not getattr(sys.stderr, "closed", False)


def lossy(stream: TextIO) -> TextIO:
    """Wrap the stream so that it never raises OSError."""
    return as_text(stream if isinstance(stream, LossyStream) else LossyStream(stream))


def as_text(stream: LossyStream | CurrentStderr | TextIO) -> TextIO:
    """Return the same object, typed as a text stream: it has all that print and rich use."""
    return cast(TextIO, stream)


def has_terminal() -> bool:
    """Whether standard error is a terminal that can show a bar."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def on_one_terminal() -> bool:
    """Whether standard output and standard error are the same terminal."""
    return sys.stdout.isatty() and sys.stderr.isatty() and os.path.sameopenfile(1, 2)
