"""Writes records to standard output, one line each, without a lock and without resume."""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

from vlmbatch.errors import OutputClosed, OutputError
from vlmbatch.images import ImageRef, ImageVersion
from vlmbatch.protocols import Finished
from vlmbatch.records import Result, to_line
from vlmbatch.writers.append import Lines, append, reason


def _nothing_is_finished(_ref: ImageRef, _get_version: Callable[[ImageRef], ImageVersion | None]) -> None:
    """Returns None for every image, since a pipe cannot be read back."""


class Stream:
    """Writes bytes to an open descriptor, which it does not close."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._file: AsyncFileIO | None = None

    async def open(self) -> None:
        """Raise OutputError if the descriptor is closed or cannot be written to."""
        try:
            os.fstat(self._fd)
            self._file = await aiofiles.open(self._fd, "wb", buffering=0, closefd=False)
        except OSError as error:
            raise _failure(error) from error

    async def write(self, data: bytes) -> None:
        """Write all of it, and wait if the reader is slow.

        Raises:
            OutputClosed: the reader has closed the stream.
            OutputError: the disk behind the stream is full, or the write failed otherwise.
        """
        if self._file is None:
            await self.open()
        assert self._file is not None, "just opened"
        try:
            await append(self._file, data)
        except OSError as error:
            raise _failure(error) from error


def _failure(error: OSError) -> OutputClosed | OutputError:
    if isinstance(error, ConnectionError):  # EPIPE of a pipe, ECONNRESET of a socket
        return OutputClosed("the reader of standard output has closed it")
    return OutputError(
        f"cannot write to standard output: {reason(error)}; "
        "write to a file to be able to resume: --output results.jsonl"
    )


class StreamWriter:
    """Writes records to standard output, and never closes it."""

    notices: tuple[str, ...] = ()
    earlier: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, fd: int = 1) -> None:
        self._stream = Stream(fd)
        self._prompt: str | None = None
        self._lines = Lines(self._put)
        self._failed: OutputClosed | OutputError | None = None

    async def __aenter__(self) -> Self:
        """Do nothing yet."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave the descriptor open."""

    async def begin(self, run: str, settings: Mapping[str, Any]) -> Finished:
        """Open the stream; every image counts as open. Each record gets the text of `settings["prompt"]`.

        Raises:
            OutputError: the descriptor is closed or cannot be written to.
        """
        self._prompt = settings.get("prompt")
        await self._stream.open()
        return _nothing_is_finished

    async def write(self, result: Result) -> None:
        """Write one line, and wait if the reader is slow; lines that arrive meanwhile are written together.

        Raises:
            OutputClosed: the reader has closed the stream.
            OutputError: the disk behind the stream is full, or the write failed otherwise.
        """
        record = result.to_record()
        if self._prompt is not None:
            record = with_prompt_text(record, self._prompt)
        if not await self._lines.add(to_line(record)) and self._failed is not None:
            raise type(self._failed)(str(self._failed)) from self._failed

    async def sync(self) -> None:
        """Do nothing: a written line has left this process."""

    def find(self, _sha256: str, _prompt: str) -> None:
        """Returns None: the stream cannot be read back."""

    async def _put(self, lines: list[bytes]) -> int:
        """Write these lines and return how many were written; `_failed` holds the reason if not all were."""
        if self._failed is not None:  # the stream may end in a part of a line, which nothing may follow
            return 0
        try:
            await self._stream.write(b"".join(lines))
        except (OutputClosed, OutputError) as error:
            self._failed = error
            return 0
        return len(lines)


def with_prompt_text(record: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The record with `prompt_text` after `prompt`: a pipe has no FILE.runs that would have the text."""
    extended: dict[str, Any] = {}
    for name, value in record.items():
        extended[name] = value
        if name == "prompt":
            extended["prompt_text"] = text
    return extended
