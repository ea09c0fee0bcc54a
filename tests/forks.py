"""Runs the command as a fork of a process that has already imported it, since imports take most of the time.

A fork repeats no imports. It has the hash seed, the user, the umask and the limits of the process that forks.
So a test of the start, of signals, memory or limits needs a new process, and so does a test that stored
digests are the same in each process: `start`, `measured` or `command=COMMAND` in command.py.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

IMPORTED = ("cli.application", "cli.command_run", "backends.ollama.backend", "backends.openai.backend")
MOST_STDIN = 50_000
"""In bytes: a pipe holds more before the command reads them."""


class Forks:
    """A process that imports vlmbatch once, and forks itself for each command."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(240)
        with theirs:
            words = (sys.executable, __file__, str(theirs.fileno()))
            self._process = subprocess.Popen(words, env=env, pass_fds=[theirs.fileno()])
        atexit.register(self._close)

    def run(self, args: Sequence[str], stdin: bytes, env: Mapping[str, str]) -> tuple[int, bytes, bytes]:
        """The exit code, standard output and standard error of the finished command."""
        with contextlib.ExitStack() as files, ThreadPoolExecutor(2) as threads:
            (input_end, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = (
                os.pipe() for _ in range(3)
            )
            readers = [
                threads.submit(files.enter_context(open(fd, "rb")).read) for fd in (from_stdout, from_stderr)
            ]
            theirs = [input_end, stdout, stderr, os.open(".", os.O_RDONLY)]
            try:
                os.write(to_stdin, stdin)
                socket.send_fds(self._socket, [json.dumps([args, dict(env)]).encode()], theirs)
            finally:
                for fd in (*theirs, to_stdin):
                    os.close(fd)
            pid = self._number()
            try:
                code = self._number()
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._number()
                raise
            return code, *(reader.result() for reader in readers)

    def _number(self) -> int:
        """The next number from the process that forks."""
        message = self._socket.recv(100)
        if not message:
            raise RuntimeError("the process that forks has ended; its traceback is on standard error")
        return int(message)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait()


@functools.cache
def forks(env: tuple[tuple[str, str], ...]) -> Forks:
    """The process that forks for this environment; the first call starts it."""
    return Forks(dict(env))


def serve(requests: socket.socket) -> None:
    """Fork for each request. Send the process id of the fork, and its exit code when it has ended."""
    for name in IMPORTED:
        importlib.import_module(f"vlmbatch.{name}")
    gc.freeze()  # the garbage collector of a fork does not write to these objects
    while True:
        message, fds, _, _ = socket.recv_fds(requests, 1_000_000, 4)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            requests.close()
            become(*json.loads(message), fds)
        for fd in fds:
            os.close(fd)
        requests.send(str(pid).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        requests.send(str(code).encode())


def become(args: Sequence[str], env: Mapping[str, str], fds: Sequence[int]) -> NoReturn:
    """Run the command here, with these arguments, variables, standard streams and working folder."""
    *streams, folder = fds
    os.fchdir(folder)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for fd in fds:
        os.close(fd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[1:] = args
    with contextlib.suppress(FileNotFoundError):  # the working folder was deleted
        sys.path[0] = os.getcwd()  # noqa: PTH109
    runpy.run_module("vlmbatch", run_name="__main__", alter_sys=True)
    raise AssertionError("the command ends its process")


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        serve(requests)
