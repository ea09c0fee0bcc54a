"""The entry point of the `vlmbatch` command and of ``python -m vlmbatch``."""

import errno
import gc
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from vlmbatch.streams import LossyStream, as_text, lossy

GC_THRESHOLD = 20_000
"""After this many new objects, Python searches the young ones for cycles. With Python's default of 700, these
searches take a fifth of the CPU time of the start, and a tenth of that of a run."""


class StandardOutput(LossyStream):
    """Standard output for help and versions: a closed pipe ends the command with 0, a full disk with 5."""

    _is_lost = False

    def write(self, text: str) -> int:
        """Write the text, or end the command on an error."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Flush, or end the command on an error; only the first error does."""
        if self._is_lost:
            return
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> NoReturn:
        self._is_lost = True
        if isinstance(error, BrokenPipeError):  # vlmbatch --help | true
            raise SystemExit(0) from error
        reason = "the stream is closed" if error.errno == errno.EBADF else error.strerror
        sys.stderr.write(
            f"vlmbatch: cannot write to standard output: {reason}; send it to another file or pipe\n"
        )
        raise SystemExit(5) from error


def main() -> None:
    """Run the command line and end the process with its exit code.

    The process always ends with os._exit: a decoder that hangs in a thread, or a pipe without a reader,
    must neither delay the exit nor change its code.
    """
    gc.set_threshold(GC_THRESHOLD)
    open_closed_streams()
    end_on_ctrl_c()
    code = 1
    sys.stdout = as_text(StandardOutput(sys.stdout))
    sys.stderr = lossy(sys.stderr)  # an unreadable message must not change the exit code
    try:
        from vlmbatch import cli

        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException as error:  # noqa: BLE001  # a bug: print the traceback, as Python does
        code = report(error)
    end_on_ctrl_c()
    try:
        sys.stdout.flush()  # os._exit would drop the rest
    except SystemExit as end:
        code = code or int(end.code or 0)
    sys.stderr.flush()
    os._exit(code)


def end_on_ctrl_c() -> None:
    """Let Ctrl-C end the process without a traceback, until a command handles SIGINT itself.

    When an event loop closes, asyncio puts Python's handler back, which raises KeyboardInterrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def report(error: BaseException) -> int:
    """Print an unhandled error and return its exit code."""
    with suppress(ImportError, MemoryError, OSError):
        from vlmbatch.errors import ResourceError

        if trouble := ResourceError.behind(error):  # imports may already fail for lack of resources
            sys.stderr.write(f"vlmbatch: {trouble}\n")
            return trouble.exit_code
        traceback.print_exception(error)
    return 1


def open_closed_streams() -> None:
    """Open each of the descriptors 0, 1 and 2 that is closed.

    Otherwise the next file to be opened gets that number, and the output of a library lands in it. Standard
    output is opened read-only, so that writing fails: records without a reader are an error, not a success.
    """
    for fd, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_RDWR)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")  # None if it was closed
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")


if __name__ == "__main__":
    main()
