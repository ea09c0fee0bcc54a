"""The entry of the `vlmbatch` command, and of ``python -m vlmbatch``."""

import os
import signal
import sys


def main() -> None:
    """Run the command line and leave with its exit code.

    A closed standard stream is opened on /dev/null first, or the first file opened would get its number
    and whatever a library prints would land in it. The end is os._exit: a decode that hangs in a thread,
    or a pipe that nobody reads, must not hold it up or change the code.
    """
    for fd in (0, 1, 2):
        _hold(fd)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")  # None where it was closed
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a run handles it: no traceback on Ctrl-C

    from vlmbatch.cli import app

    try:
        app(prog_name="vlmbatch")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 0
    os._exit(code)


def _hold(fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError:
        os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    main()
