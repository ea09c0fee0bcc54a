"""The entry of the `vlmbatch` command, and of ``python -m vlmbatch``."""

import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from vlmbatch.streams import LossyStream, as_text, lossy


class StandardOutput(LossyStream):
    """Standard output for help and the like: no reader ends the command well, a full disk does not."""

    _is_lost = False

    def write(self, text: str) -> int:
        """Write, or end the command."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Flush, or end the command, which happens once."""
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
        sys.stderr.write(f"vlmbatch: cannot write to standard output: {error.strerror}\n")
        raise SystemExit(5) from error


def main() -> None:
    """Run the command line and leave with its exit code.

    The end is os._exit, whatever happened: a decode that hangs in a thread, or a pipe that nobody reads,
    must neither hold up the exit nor change its code.
    """
    hold_standard_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a run handles it: no traceback on Ctrl-C
    code = 1
    sys.stdout = as_text(StandardOutput(sys.stdout))
    sys.stderr = lossy(sys.stderr)  # a message that nobody can read changes no exit code
    try:
        from vlmbatch.cli import app

        app(prog_name="vlmbatch")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:  # noqa: BLE001  # a bug: shown in full, as Python would
        code = tell(error)
    try:
        sys.stdout.flush()  # os._exit would drop what is left
    except SystemExit as end:
        code = code or int(end.code or 0)
    sys.stderr.flush()
    os._exit(code)


def tell(error: BaseException) -> int:
    """Show what nobody has handled, and return its exit code."""
    with suppress(ImportError, MemoryError, OSError):
        from vlmbatch.errors import ResourceError

        if trouble := ResourceError.behind(error):  # as early as the imports
            sys.stderr.write(f"vlmbatch: {trouble}\n")
            return trouble.exit_code
        traceback.print_exception(error)
    return 1


def hold_standard_streams() -> None:
    """Open what was closed of 0, 1 and 2, or the first file opened would get that number.

    Then whatever a library prints would land in it. Standard output is opened so that writing fails:
    records that nobody can receive are an error, not a success.
    """
    for fd, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_RDWR)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")  # None where it was closed
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")


if __name__ == "__main__":
    main()
