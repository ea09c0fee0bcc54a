"""Text streams for what is told to people: one that never fails, and one that never waits either."""

import threading
from collections import deque
from contextlib import suppress
from typing import TextIO, cast

MOST_WAITING = 10_000
"""Texts that wait for a reader who has stopped reading; what comes then is dropped."""
PATIENCE_S = 2.0


class LossyStream:
    """A text stream that drops what it cannot write: no run fails because nobody listens any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write, or drop it where the reader or the terminal has gone or the disk is full."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush as far as that is possible."""
        with suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()


class BackgroundStream(LossyStream):
    """A stream that a thread writes to, so that nobody waits for a reader who is slow or has stopped.

    A terminal that is halted with Ctrl-S, or a pipe that nobody empties, would else hold up the event loop
    of a run, and its signals with it.
    """

    def __init__(self, stream: TextIO, *, most: int = MOST_WAITING) -> None:
        """`most` texts wait at most."""
        super().__init__(stream)
        self.dropped = 0
        self._most = most
        self._waiting: deque[str] = deque()
        self._changed = threading.Condition()  # of an RLock: a signal may come in the middle of write()
        self._closed = False
        self._thread = threading.Thread(target=self._keep_writing, name="vlmbatch-stderr", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Have it written soon."""
        with self._changed:
            if len(self._waiting) < self._most:
                self._waiting.append(text)
                self._changed.notify()
            else:
                self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Nothing: whatever is written is flushed."""

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """Return when all is written, or when a reader has had so many seconds for it."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(patience_s)

    def _keep_writing(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                text = "".join(self._waiting)
                self._waiting.clear()
                if not text and self._closed:
                    return
            super().write(text)
            super().flush()


def lossy(stream: TextIO) -> TextIO:
    """The stream as one that never raises OSError."""
    return as_text(stream if isinstance(stream, LossyStream) else LossyStream(stream))


def as_text(stream: LossyStream | TextIO) -> TextIO:
    """The same object, for those who want a text stream: it has what print and rich use of one."""
    return cast(TextIO, stream)
