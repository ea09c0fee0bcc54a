"""Runs the real command in a terminal, and returns the content of its screen."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import pyte
from command import COMMAND, environment


class Terminal:
    """The command with standard error on a terminal; standard output goes there too, or is discarded.

    With `stdin`, standard input is the terminal, too, as when a person starts the command. `command` may be
    another program.
    """

    def __init__(
        self,
        *args: str,
        command: Iterable[str] = COMMAND,
        columns: int = 80,
        stdout: bool = False,
        stdin: bool = False,
        **variables: str,
    ) -> None:
        self._screen = pyte.Screen(columns, 40)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._process = subprocess.Popen(
            [*command, *args],
            stdin=theirs if stdin else subprocess.DEVNULL,
            stdout=theirs if stdout else subprocess.DEVNULL,
            stderr=theirs,
            env=environment(**{"TERM": "xterm-256color", **variables}),
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self.close()

    def send_signal(self, number: int) -> None:
        """Send the command a signal."""
        self._process.send_signal(number)

    @property
    def rows(self) -> list[str]:
        """The rows of the screen that are not empty."""
        return [row.rstrip() for row in self._screen.display if row.strip()]

    def until(self, *patterns: str) -> list[str]:
        """Wait until the screen matches all of these regular expressions; returns its rows."""
        end = time.monotonic() + 200  # a bar writes for ever, so silence alone does not show a wrong screen
        while missing := [pattern for pattern in patterns if not re.search(pattern, "\n".join(self.rows))]:
            assert self._read(), f"the command ended first; the screen: {self.rows}"
            assert time.monotonic() < end, f"{missing} is not on the screen: {self.rows}"
        return self.rows

    def wait(self) -> int:
        """Wait for the end of the command and update the screen; returns the exit code."""
        while self._read():
            pass
        return self._process.wait(timeout=240)

    def interrupt(self) -> None:
        """Send the signal of Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Close the terminal, as a lost connection does."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _read(self) -> bool:
        """Read some output; returns False at the end."""
        if self._fd < 0:
            return False
        ready, _, _ = select.select([self._fd], [], [], 120)
        assert ready, f"nothing for two minutes; the screen: {self.rows}"
        try:
            written = os.read(self._fd, 65536)
        except OSError:  # on Linux: no process has the terminal open any more
            return False
        self.raw += written
        self._stream.feed(written)
        return bool(written)
