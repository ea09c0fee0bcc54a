"""Find an answer again in the output that it was written to, by what it is about."""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from vlmbatch.integer_map import IntegerMap
from vlmbatch.records import Result, to_line
from vlmbatch.writers.line_parser import answer_digest, parse

CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """A line to write; `answer` stands for the content and prompt that it is the first to answer, if so."""

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


class Recall:
    """Where in an output the answers begin, in bytes: 20 of them an image. For several threads."""

    def __init__(self, answers: IntegerMap) -> None:
        """`answers` are those that are there, by their `answer_digest`."""
        self._answers = answers
        self._lock = threading.Lock()
        self._fd: int | None = None

    def open(self, path: str) -> None:
        """Read from this file; raises OSError."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Read no more."""
        with self._lock:
            fd, self._fd = self._fd, None
            if fd is not None:
                os.close(fd)

    def note(self, answer: int | None, start: int) -> None:
        """The line of this answer begins here."""
        if answer is not None:
            with self._lock:
                self._answers[answer] = start

    def find(self, sha256: str, prompt: str) -> Mapping[str, Any] | None:
        """The record of the answer about this content to this prompt; blocks.

        Digests may be equal by chance: whoever asks looks at the record.
        """
        with self._lock:
            start, fd = self._answers.get(answer_digest(sha256, prompt)), self._fd
        if start is None or fd is None:
            return None
        with suppress(OSError):  # what cannot be read back is asked about again
            return parse(_line(fd, start))
        return None


def _line(fd: int, start: int) -> bytes:
    """The line that begins there."""
    pieces: list[bytes] = []
    while piece := os.pread(fd, CHUNK, start):
        pieces.append(piece)
        start += len(piece)
        if b"\n" in piece:
            break
    return b"".join(pieces).partition(b"\n")[0]
