"""Knows which lines an output has, to write each record of a queue once even if it is delivered twice."""

from pathlib import Path

from vlmbatch.images import FileStamp
from vlmbatch.integer_map import IntegerMap
from vlmbatch.records import Result, to_line
from vlmbatch.writers.line_parser import LARGEST, image_digest, version_digest
from vlmbatch.writers.resume import CHUNK, lines

_IN_FILE, _NOTED = 0, 1


class WrittenLines:
    """The lines that an output had before, and those that were noted with their answers, at 20 bytes each."""

    def __init__(self) -> None:
        self._lines = IntegerMap()
        self._answers = IntegerMap()

    def read(self, path: str) -> None:
        """Note all lines of this file, if it exists, as those from before; blocks, raises OSError."""
        if not Path(path).is_file():  # a pipe would block
            return
        with open(path, "rb", buffering=CHUNK) as file:
            for line, _ in lines(file):
                self._lines[_digest(line)] = _IN_FILE

    def was_there(self, result: Result) -> bool:
        """Whether the output had this record before."""
        return self._lines.get(_line_of(result)) == _IN_FILE

    def note(self, result: Result) -> bool:
        """Note the record of this result; returns whether neither it nor an answer was noted before.

        An answer counts only for the same version of the image.
        """
        line, image, version = _line_of(result), image_digest(result.id, result.prompt), _version_of(result)
        if self._lines.get(line) is not None or (version is not None and self._answers.get(image) == version):
            return False
        self._lines[line] = _NOTED
        if result.ok and version is not None:
            self._answers[image] = version
        return True


def stamp_of(result: Result) -> FileStamp | None:
    """The stamp of the file of a result; None for an image that was in no file."""
    size, mtime = result.image.bytes, result.image.mtime
    return None if size is None or mtime is None else FileStamp(size, mtime)


def _version_of(result: Result) -> int | None:
    stamp = stamp_of(result)
    return None if stamp is None else version_digest(stamp)


def _line_of(result: Result) -> int:
    return _digest(to_line(result.to_record()))


def _digest(line: bytes) -> int:
    """64 bits that stand for a line within this process."""
    return hash(line) & LARGEST
