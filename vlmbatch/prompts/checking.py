"""Checks answers against a JSON Schema in a process that can be ended (answer_checker.py)."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlmbatch.aio import threads

_SCRIPT = Path(__file__).with_name("answer_checker.py")

_NO_REASON = "the place takes too long to find"


class CheckFailedError(Exception):
    """A check that took too long, or that ended its process in another way; the message says which."""


class Checker:
    """One process for all checks, which come one after the other. It starts with the first one.

    It ends with its standard input, so also if this process is killed.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self.thread = threads(1, "answers")
        """For callers with an event loop: a slow check must not keep the threads of the output busy."""

    def check(self, schema: str, answers: list[Any]) -> list[str | None] | str:
        """For each answer the first mismatch and its place, or None; a text if the schema cannot be used.

        Raises:
            CheckFailedError: the check took too long, or overflowed its memory.
        """
        request = json.dumps({"schema": schema, "answers": answers})
        with self._lock:
            matching, flaws = self._exchange(request)
        checked: Any = json.loads(flaws or matching)
        if flaws or isinstance(checked, str):
            return checked  # type: ignore[no-any-return]
        return [None if matches else _NO_REASON for matches in checked]

    def close(self) -> None:
        """End the process; the next check starts another one."""
        with self._lock:
            if self._process is not None:
                self._end(self._process)

    def _exchange(self, request: str) -> tuple[str, str]:
        """Send a request; returns both lines of the reply, of which the second one may be missing."""
        process = self._process
        if process is None or process.poll() is not None:  # the system may have ended it since the last check
            process = self._process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        matching = flaws = ""
        with suppress(BrokenPipeError):  # its exit code, below, says why
            process.stdin.write(request + "\n")
            process.stdin.flush()
            matching, flaws = process.stdout.readline(), process.stdout.readline()
        if not flaws.endswith("\n"):
            code, flaws = self._end(process), ""
            if not matching.endswith("\n"):
                what = "long" if code == -signal.SIGPROF else "much memory"
                raise CheckFailedError(f"takes too {what} to check")
        return matching, flaws

    def _start(self) -> "subprocess.Popen[str]":
        if self._process is not None:
            self._end(self._process)
        paths = json.dumps([path for path in sys.path if path])
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SCRIPT), paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            start_new_session=True,  # Ctrl-C ends the run in order, and the checks with it
        )

    def _end(self, process: "subprocess.Popen[str]") -> int:
        """Close the process and give its exit code."""
        self._process = None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        with suppress(BrokenPipeError):  # it has ended before it read everything
            process.stdin.close()
        return process.wait()

    def forget(self) -> None:
        """Leave the process to the parent of this process, which is a fork."""
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.returncode = 0  # it is no child of this process
            self._process = None
        self._begin()


CHECKER = Checker()
atexit.register(CHECKER.close)
os.register_at_fork(after_in_child=CHECKER.forget)
