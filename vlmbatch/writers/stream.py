"""Records to standard output, one line each: no lock, and nothing to resume."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Self

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

from vlmbatch.errors import OutputClosed, OutputError
from vlmbatch.images import FileStamp, ImageRef
from vlmbatch.protocols import Finished
from vlmbatch.records import Result, to_line
from vlmbatch.writers.append import Lines, append, reason


def _ask_about_all(_ref: ImageRef, _get_stamp: Callable[[], FileStamp | None]) -> None:
    """What has left through a pipe cannot be read back, so nothing is ever finished."""


class StreamWriter:
    """Writes records to an open descriptor, which it does not close."""

    notices: tuple[str, ...] = ()
    earlier: tuple[Mapping[str, Any], ...] = ()

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._file: AsyncFileIO | None = None
        self._lines = Lines(self._put)
        self._failed: OutputClosed | OutputError | None = None

    async def __aenter__(self) -> Self:
        """Acquire nothing yet."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave the descriptor open, as it was found."""

    async def begin(self, run: str, settings: Mapping[str, Any]) -> Finished:
        """Every image has to be asked about.

        Raises:
            OutputError: the descriptor is closed or cannot be written to.
        """
        try:
            os.fstat(self._fd)
            self._file = await aiofiles.open(self._fd, "wb", buffering=0, closefd=False)
        except OSError as error:
            raise self._failure(error) from error
        return _ask_about_all

    async def write(self, result: Result) -> None:
        """Write one line, and wait where the reader is slow; lines that come meanwhile go together.

        Raises:
            OutputClosed: nobody reads any more.
            OutputError: the disk behind it is full, or it failed otherwise.
        """
        if not await self._lines.add(to_line(result.to_record())) and self._failed is not None:
            raise type(self._failed)(str(self._failed)) from self._failed

    def find(self, _sha256: str, _prompt: str) -> None:
        """Nothing: what has left cannot be read back."""

    async def _put(self, lines: list[bytes]) -> int:
        """Write these lines; how many of them are there. Why not all are is in `_failed`."""
        if self._failed is not None:  # a part of a line may stand there: nothing may follow it
            return 0
        if self._file is None:
            raise RuntimeError("begin() comes before write()")
        try:
            await append(self._file, b"".join(lines))
        except OSError as error:
            self._failed = self._failure(error)
            return 0
        return len(lines)

    @staticmethod
    def _failure(error: OSError) -> OutputClosed | OutputError:
        if isinstance(error, ConnectionError):  # EPIPE of a pipe, ECONNRESET of a socket
            return OutputClosed("the reader of standard output has gone")
        return OutputError(
            f"cannot write to standard output: {reason(error)}. "
            "To be able to go on after a failure, write to a file: --output results.jsonl"
        )
