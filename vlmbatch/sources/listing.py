"""Reads images from a list of paths, one by one as the list arrives."""

import codecs
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import BinaryIO, cast

from vlmbatch.config.groups import InputOptions
from vlmbatch.config.text_file import UTF16_MARKS
from vlmbatch.errors import ConfigError
from vlmbatch.events import SourceProblem
from vlmbatch.images import ImageRef
from vlmbatch.integer_map import IntegerMap
from vlmbatch.sources.files import FileSource, reason
from vlmbatch.sources.globs import normalise
from vlmbatch.sources.in_memory import InMemoryImage
from vlmbatch.sources.own_files import OwnFiles
from vlmbatch.sources.walk import Walk

CHUNK = 65536
_64_BITS = (1 << 64) - 1

# names of one character each, with NULs between them
_UTF16 = re.compile(
    rb"(?:[^\0]\0){6}|(?:[^\0]\0)+[\r\n]\0"  # little endian
    rb"|(?:\0[^\0]){6}|(?:\0[^\0])+\0[\r\n]"  # big endian
)
_UNDECIDED = re.compile(rb"[^\0]?\0(?:[^\0]\0){0,4}[^\0]?")
_MARKS = (codecs.BOM_UTF8, *UTF16_MARKS, codecs.BOM_UTF32_LE)

# far above the longest path of any system: 4,096 bytes on Linux, 1,024 on macOS
_LONGEST_PATH = 1 << 20


class ListSource(FileSource):
    """The paths of a list, separated by NUL (``find -print0``) or by newlines; a repeated path comes once.

    A file of the list is included whatever its name. A missing file becomes a reference whose `read` fails.
    A folder is walked like a PATH.
    """

    def __init__(
        self,
        stream: BinaryIO,
        options: InputOptions,
        on_problem: Callable[[SourceProblem], None] = lambda problem: None,
        own: OwnFiles | None = None,
        in_memory: Sequence[InMemoryImage] = (),
    ) -> None:
        """`on_problem` receives each folder that cannot be listed, on the thread that iterates.

        `own` are files of the run, which do not count as images. The images `in_memory` come first.
        """
        super().__init__(options, on_problem, own, in_memory)
        self._stream = stream

    def __iter__(self) -> Iterator[ImageRef]:
        """Yield the images of each path as soon as the whole path has arrived.

        Raises:
            ConfigError: standard input cannot be read, or is not a list of paths.
        """
        yield from self._in_memory
        walk = Walk(self._globs, self._ignore, self._report, on_skipped=self._skip, own=self._own)
        seen = IntegerMap()
        for path in split_paths(self._stream):
            for image in walk.images(normalise(os.fsdecode(path))):
                # 64 bits: among ten million paths, two share a digest once in 370,000 runs
                if seen.add(hash(image.id) & _64_BITS, 0):
                    yield image

    def count(self) -> None:
        """Returns None: a stream cannot be read twice."""


def split_paths(stream: BinaryIO) -> Iterator[bytes]:
    """The paths in a stream, each as soon as its separator has arrived; blank ones are skipped.

    The separator is NUL if one arrives with the first paths, else a newline, with or without a
    carriage return before it.

    Raises:
        ConfigError: the stream cannot be read, or is not a list of paths.
    """
    separator = b""
    rest = b""
    for chunk in _in_utf8(_chunks(stream)):
        rest += chunk
        separator = separator or _separator(rest)
        if separator:
            *whole, rest = rest.split(separator)
            yield from _clean(whole, separator)
        if len(rest) > _LONGEST_PATH:
            raise ConfigError("standard input is not a list of paths; write one path per line")
    yield from _clean([rest], separator)


def _in_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks without a byte order mark, and in UTF-8 if the mark is that of UTF-16 (PowerShell's ``>``).

    In a list with NUL separators, all bytes belong to the names.
    """
    start = b""
    for chunk in chunks:
        start += chunk
        is_mark = any(mark.startswith(start) for mark in _MARKS)
        # behind a mark of UTF-8, the separator decides whether the mark is part of a name
        is_open = start.startswith(codecs.BOM_UTF8) and not _separator(start) and len(start) <= _LONGEST_PATH
        if not (is_mark or is_open) and (_UTF16.match(start) or not _UNDECIDED.fullmatch(start)):
            break
    if _UTF16.match(start) or start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        # read as separators, the NULs would make a path of each character, also of /
        raise ConfigError(
            "standard input seems to be in UTF-32, or in UTF-16 without a byte order mark; write it in UTF-8"
        )
    if start.startswith(UTF16_MARKS):
        yield from _from_utf16(chain([start], chunks))
        return
    yield start if b"\0" in start else start.removeprefix(codecs.BOM_UTF8)
    yield from chunks


def _from_utf16(chunks: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ConfigError("standard input is not a list of paths in UTF-16; write it in UTF-8") from error


def _separator(start: bytes) -> bytes:
    return b"\0" if b"\0" in start else b"\n" if b"\n" in start else b""


def _clean(paths: list[bytes], separator: bytes) -> Iterator[bytes]:
    if separator == b"\0":
        return filter(None, paths)
    return (path.removesuffix(b"\r") for path in paths if path.strip())


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    # read1 returns the available bytes; read would wait for a full chunk
    buffered = cast(io.BufferedIOBase, stream)
    while True:
        try:
            chunk = buffered.read1(CHUNK)
        except OSError as error:
            raise ConfigError(
                f"standard input cannot be read: {reason(error)}; pipe a list of paths into this command"
            ) from error
        if not chunk:
            return
        yield chunk
