"""What a command itself says on standard error, beside the observers of its run."""

import os
import sys

from vlmbatch.config.run import DisplayOptions
from vlmbatch.events import Notice
from vlmbatch.observers import JsonLog, clean
from vlmbatch.streams import BackgroundStream, as_text


class Console:
    """Plain lines, or with --log-json one event each; nobody waits for who reads them."""

    def __init__(self, display: DisplayOptions) -> None:
        self._background = BackgroundStream(sys.stderr)
        self.stream = as_text(self._background)
        self._log = JsonLog(self.stream) if display.log_json else None

    def say(self, text: str) -> None:
        """Say it; where nobody can hear it, the exit code still tells."""
        if self._log is not None:
            self._log(Notice(message=text))
        else:
            self.stream.write(f"vlmbatch: {text}\n")

    def close(self) -> None:
        """Let what was said be read, for a moment."""
        if lost := self._background.dropped:
            self.say(f"{lost} lines were dropped, since nobody read standard error in time")
        self._background.close()


def is_watched() -> bool:
    """Whether standard error is a terminal that can show more than lines."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Foreign text in one line that steers no terminal, in characters that standard output can take."""
    encoding = sys.stdout.encoding or "utf-8"
    return clean(text).encode(encoding, "replace").decode(encoding)
