"""Finds the record of an answer in the output by the image's content and the prompt."""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from vlmbatch import system
from vlmbatch.integer_map import IntegerMap
from vlmbatch.records import Result, to_line
from vlmbatch.writers.line_parser import answer_digest, parse

CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """A line to write; `answer` is the digest of content and prompt, None for failures and duplicates."""

    data: bytes
    answer: int | None

    @classmethod
    def of(cls, result: Result) -> Self:
        """The line of this result."""
        own = result.ok and result.duplicate_of is None and result.image.sha256
        return cls(
            data=to_line(result.to_record()),
            answer=answer_digest(own, result.prompt) if own else None,
        )


class AnswerIndex:
    """The offsets of the answers in an output, at 20 bytes an image. Several threads may use it."""

    def __init__(self, earlier: IntegerMap | None = None) -> None:
        """`earlier` maps the `answer_digest` of each answer of earlier runs to the offset of its line."""
        self._starts = IntegerMap() if earlier is None else earlier
        self._lock = threading.Lock()
        self._fd: int | None = None

    def open(self, path: str) -> None:
        """Open this file for reading; raises OSError."""
        self._fd = os.open(path, os.O_RDONLY | system.BINARY)

    def close(self) -> None:
        """Close the file; find() returns None from now on."""
        with self._lock:
            fd, self._fd = self._fd, None
            if fd is not None:
                os.close(fd)

    def note(self, answer: int | None, start: int) -> None:
        """Note that the line of this answer begins at `start`."""
        if answer is not None:
            with self._lock:
                self._starts[answer] = start

    def find(self, sha256: str, prompt: str) -> Mapping[str, Any] | None:
        """The record of the answer to this content and prompt; blocks.

        Digests may be equal by chance, so the caller must check the record.
        """
        answer = answer_digest(sha256, prompt)
        with self._lock:
            start, fd = self._starts.get(answer), self._fd
        if start is None or fd is None:
            return None
        with suppress(OSError):  # if the record cannot be read back, the image is processed again
            return parse(_line(fd, start))
        return None


def _line(fd: int, start: int) -> bytes:
    """The line that begins at `start`."""
    pieces: list[bytes] = []
    while piece := system.read_at(fd, CHUNK, start):
        pieces.append(piece)
        start += len(piece)
        if b"\n" in piece:
            break
    return b"".join(pieces).partition(b"\n")[0]
