"""The messages of a command itself on standard error, in addition to those of the observers."""

import asyncio
import sys

from vlmbatch.config.run import DisplayOptions
from vlmbatch.events import Notice
from vlmbatch.observers import JsonLog, clean
from vlmbatch.streams import BackgroundStream, as_text, has_terminal

LAST_S = 0.5


class Console:
    """Prints messages as plain lines, or as events with --log-json; a slow reader does not block it."""

    def __init__(self, display: DisplayOptions) -> None:
        self._background = BackgroundStream(sys.stderr)
        self.stream = as_text(self._background)
        self._log = JsonLog(self.stream) if display.log_json else None

    def say(self, text: str) -> None:
        """Print one message."""
        if self._log is not None:
            self._log(Notice(message=text))
        else:
            self.stream.write(f"vlmbatch: {text}\n")

    async def wait_for_room(self) -> None:
        """Wait until the next text will not be dropped."""
        if self._background.is_full:
            await self.wait()

    async def wait(self) -> None:
        """Wait until all texts so far are written."""
        await asyncio.to_thread(self._background.wait)

    def say_last(self, text: str) -> None:
        """Print one message below a bar, and wait at most LAST_S seconds until it is written."""
        if self._log is None and has_terminal():
            self.stream.write("\n")
        self.say(text)
        self._background.close(LAST_S)

    def close(self) -> None:
        """Wait a moment until all messages are written."""
        if lost := self._background.dropped:
            self.say(f"{lost} lines were dropped, since standard error was not read in time")
        self._background.close()


def printable(text: str) -> str:
    """Make foreign text safe for a terminal, in one line and in the encoding of standard output."""
    encoding = sys.stdout.encoding or "utf-8"
    return clean(text).encode(encoding, "replace").decode(encoding)
