"""Read back what an output file holds: which images need no asking, and what is wrong with the file.

It reads only. Memory is two integers per image, however long the answers are.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from vlmbatch.errors import ConfigError, FailureKind
from vlmbatch.protocols import Finished
from vlmbatch.records import DEFAULT_PROMPT_NAME, FileStamp, ImageRef

RECORD_START = b'{"v":1,"id":"'
BLANK = b"\0 \t\r\n"
HEAD_BYTES = 1 << 20
LONGEST_LINE = 1 << 24
"""Bytes: an answer of a million tokens has four million."""
# integers of up to 60 bits take 32 bytes in CPython, longer ones 48
KEY_MASK = (1 << 60) - 1
STAMP_MASK = KEY_MASK >> 1

Index = dict[int, int]
"""For each image and prompt that is settled: digest of both -> digest of the file's stamp * 2 + answered."""


@dataclass(slots=True)
class Contents:
    """What was found in an output file. `tail` is how many bytes stand behind its last newline.

    `other` is the last record of another run; `runs` are the digests of all runs.
    """

    index: Index = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    other: Mapping[str, Any] | None = None
    bad_lines: int = 0
    tail: int = 0
    tail_is_whole: bool = False


def read_contents(
    path: str, run: str, *, retry_failed: bool, again: frozenset[FailureKind] = frozenset()
) -> Contents:
    """Read all lines once, and index those of `run`; the last line of an image and prompt counts.

    What failed for good is settled, unless `retry_failed` is set or its kind is among `again`.

    Raises:
        ConfigError: this is no file of ours.
        OSError: it cannot be read.
    """
    contents = Contents()
    refuse_foreign(path)
    with open(path, "rb") as file:
        for line, size in lines(file):
            record = parse(line)
            if not line.endswith(b"\n"):
                contents.tail, contents.tail_is_whole = size, record is not None
            elif record is None and line.strip(b" \t\r\n"):
                contents.bad_lines += 1
            if record is not None:
                _take_in(contents, record, run, lambda kind: retry_failed or kind in again)
    return contents


def lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line and its size in bytes.

    Of one that is longer than any record, as the gigabytes of zeros that a crash may leave, only the
    beginning comes, and its newline, if it has one.
    """
    while line := file.readline(LONGEST_LINE):
        size, more = len(line), line
        while not more.endswith(b"\n") and len(more) == LONGEST_LINE:
            more = file.readline(LONGEST_LINE)
            size += len(more)
        whole = more is line or not more.endswith(b"\n")
        yield (line if whole else line + b"\n"), size


def refuse_foreign(path: str) -> None:
    """Never append to somebody's other file, and never overwrite it: it may be a picture or a thesis.

    Raises:
        ConfigError: this is no file of ours.
        OSError: it cannot be read.
    """
    if not Path(path).is_file():  # a pipe would block
        return
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        if not is_ours(head) or (not head.strip(BLANK) and file.read(1)):
            raise ConfigError(
                f"{path} holds something other than records of vlmbatch, and is left as it is; "
                "name another file with --output"
            )


def is_ours(head: bytes) -> bool:
    """Whether the first line is a record, or what a crash may have left of one. An empty file is ours too."""
    start = head.lstrip(BLANK)
    first, newline, _ = start.partition(b"\n")
    torn = not newline and RECORD_START.startswith(first.rstrip(b"\0"))
    return torn or first.startswith(RECORD_START) or parse(first) is not None


def parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line, or None where it holds none."""
    if b"\0" in line:  # json would take it for UTF-16
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # what a crash or an editor leaves can be nested without end
        return None
    if isinstance(record, dict) and "v" in record and isinstance(record.get("id"), str):
        return record
    return None


def finished_by(index: Index) -> Finished:
    """The question to an index: is this image done, failed for good, or to be asked about?"""

    def finished(ref: ImageRef, get_stamp: Callable[[], FileStamp | None]) -> bool | None:
        prompt = DEFAULT_PROMPT_NAME if ref.prompt is None else ref.prompt
        known = index.get(_key(ref.id, prompt))
        if known is None:
            return None
        stamp = get_stamp()
        if stamp is None or _stamp_digest(stamp.bytes, stamp.mtime) != known >> 1:
            return None
        return bool(known & 1)

    return finished


def _take_in(
    contents: Contents, record: Mapping[str, Any], run: str, again: Callable[[object], bool]
) -> None:
    digest = str(record.get("run"))
    contents.runs.add(digest)
    if digest != run:
        contents.other = record
        return
    key = _key(record["id"], str(record.get("prompt", DEFAULT_PROMPT_NAME)))
    answered = record.get("status") == "ok"
    stamp = _recorded_stamp(record)
    if stamp is None or not (answered or _failed_for_good(record, again)):
        contents.index.pop(key, None)
    else:
        contents.index[key] = stamp << 1 | answered


def _failed_for_good(record: Mapping[str, Any], again: Callable[[object], bool]) -> bool:
    error = record.get("error")
    return isinstance(error, dict) and error.get("retryable") is False and not again(error.get("kind"))


def _recorded_stamp(record: Mapping[str, Any]) -> int | None:
    image = record.get("image")
    if not isinstance(image, dict):
        return None
    size, mtime = image.get("bytes"), image.get("mtime")
    if not isinstance(size, int) or not isinstance(mtime, int | float):
        return None
    return _stamp_digest(size, mtime)


def _key(image_id: str, prompt: str) -> int:
    # UTF-16 takes any file name, and sees a surrogate pair as the one character that JSON makes of it
    return hash((image_id.encode("utf-16-le", "surrogatepass"), prompt)) & KEY_MASK


def _stamp_digest(size: int, mtime: float) -> int:
    return hash((size, mtime)) & STAMP_MASK
