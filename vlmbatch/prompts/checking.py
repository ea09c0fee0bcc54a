"""Checks answers against a JSON Schema in a process that can be ended (answer_checker.py)."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from vlmbatch import system
from vlmbatch.aio import Turns

_SCRIPT = Path(__file__).with_name("answer_checker.py")

PATIENCE_S = 20.0
"""A check may take this long. Its processor time ends it earlier, but not if it is stopped or swapped out."""
_LATE: int = -getattr(signal, "SIGPROF", -1)
"""The exit code of a process whose check took too much time; see answer_checker.py."""
_NO_REASON = "the place takes too long to find"


class CheckFailedError(Exception):
    """A check that took too long, or that ended its process in another way; the message says which."""


class Checker:
    """One process for all checks, which come one after the other. It starts with the first one.

    It ends with its standard input, so also if this process is killed.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self.turns = Turns("answers")
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
                self._process.kill()  # it may be stopped
                self._end(self._process)

    def _exchange(self, request: str) -> tuple[bytes, bytes]:
        """Send a request; returns both lines of the reply, of which the second one may be missing."""
        process = self._process = self._running()
        until = time.monotonic() + PATIENCE_S
        try:
            reply = _reply(process, request.encode("ascii") + b"\n", until)
        except BaseException:  # an interrupt by the user: no later request may read this reply
            process.kill()
            self._end(process)
            raise
        matching, *others = reply.split(b"\n")
        if len(others) == 2:
            return matching, others[0]
        code = self._end(process)
        if not others:
            is_late = code == _LATE or time.monotonic() >= until
            raise CheckFailedError(f"takes too {'long' if is_late else 'much memory'} to check")
        return matching, b""

    def _running(self) -> "subprocess.Popen[bytes]":
        """The process of the last check, or a new one if the system has ended that."""
        if self._process is not None:
            if self._process.poll() is None:
                return self._process
            self._end(self._process)
        paths = json.dumps([path for path in sys.path if path])
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SCRIPT), paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # a buffer has a lock, for which forget() could wait without end
            # Ctrl-C ends the run in order, and the checks with it
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        assert process.stdin is not None
        system.never_block(process.stdin)  # else a write could wait for a stopped process
        return process

    def _end(self, process: "subprocess.Popen[bytes]") -> int:
        """Close a process, which ends then, and give its exit code."""
        self._process = None
        _close(process)
        return process.wait()

    def forget(self) -> None:
        """Leave the process to the parent of this process, which is a fork."""
        if self._process is not None:
            _close(self._process)
            self._process.returncode = 0  # it is no child of this process
            self._process = None
        self._begin()


def _reply(process: "subprocess.Popen[bytes]", request: bytes, until: float) -> bytes:
    """What the process replies to this request: two lines, or what it wrote before it ended.

    At the time `until`, of time.monotonic(), the process is killed.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    if system.CAN_WAIT_FOR_PIPES:
        return _exchanged(process, process.stdin, process.stdout, request, until)
    timer = threading.Timer(max(until - time.monotonic(), 0), process.kill)  # takes ten times as long
    timer.start()
    try:
        return _exchanged(process, process.stdin, process.stdout, request, None)
    finally:
        timer.cancel()


def _exchanged(
    process: "subprocess.Popen[bytes]", to: IO[bytes], back: IO[bytes], request: bytes, until: float | None
) -> bytes:
    with suppress(BrokenPipeError):  # its exit code says why
        rest = memoryview(request)
        while rest:
            _wait(process, to, until, to_write=True)
            rest = rest[os.write(to.fileno(), rest) :]
    reply = b""
    while reply.count(b"\n") < 2:
        _wait(process, back, until, to_write=False)
        piece = os.read(back.fileno(), 65536)
        if not piece:
            break
        reply += piece
    return reply


def _wait(
    process: "subprocess.Popen[bytes]", pipe: IO[bytes], until: float | None, *, to_write: bool
) -> None:
    """Wait until the pipe is ready, or kill the process, so that it is. Without a time, return at once."""
    if until is None:
        return
    if not system.is_ready(pipe, to_write=to_write, seconds=max(until - time.monotonic(), 0)):
        process.kill()
        system.is_ready(pipe, to_write=to_write, seconds=None)


def _close(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()


CHECKER = Checker()
atexit.register(CHECKER.close)
system.after_fork(CHECKER.forget)
