"""Read back what an output file holds: which images need no asking, and what is wrong with the file.

It reads only. Memory is some 40 bytes per image, however long the answers are.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from vlmbatch.errors import ConfigError, FailureKind
from vlmbatch.images import FileStamp, ImageRef
from vlmbatch.integer_map import IntegerLog, IntegerMap
from vlmbatch.protocols import Finished
from vlmbatch.records import DEFAULT_PROMPT_NAME
from vlmbatch.writers.line_parser import Outcome, image_digest, parse, read_outcome, stamp_digest

RECORD_START = b'{"v":1,"id":"'
BLANK = b"\0 \t\r\n"
HEAD_BYTES = 1 << 20
LONGEST_LINE = 1 << 24
"""Bytes: an answer of a million tokens has four million."""
OPEN = 0
"""What an index holds of an image that has to be asked about again."""


@dataclass(slots=True)
class Contents:
    """What was found in an output file. `tail` is how many bytes stand behind its last newline.

    `index` has, by the `image_digest` of each image and prompt, the digest of the file's stamp * 2 + answered
    or OPEN; `answers`, by the `answer_digest` of each content and prompt, the byte at which the line of its
    last answer begins, copies of answers left out. `other` is the last record of another run; `runs` are the
    digests of all runs.
    """

    index: IntegerMap = field(default_factory=IntegerMap)
    answers: IntegerMap = field(default_factory=IntegerMap)
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
    index, answers = IntegerLog(), IntegerLog()
    refuse_foreign(path)
    end, other = 0, b""

    def is_open(failure: str) -> bool:
        return retry_failed or failure in again

    with open(path, "rb") as file:
        for line, size in lines(file):
            start, end = end, end + size
            outcome = read_outcome(line)
            if not line.endswith(b"\n"):
                contents.tail, contents.tail_is_whole = size, outcome is not None
            elif outcome is None and line.strip(b" \t\r\n"):
                contents.bad_lines += 1
            if outcome is not None:
                contents.runs.add(outcome.run)
                if outcome.run != run:
                    other = line
                    continue
                index.append(outcome.image, _entry(outcome, is_open))
                if outcome.answer is not None:
                    answers.append(outcome.answer, start)
    contents.other = parse(other)
    contents.index, contents.answers = IntegerMap.of(index), IntegerMap.of(answers)
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


def finished_by(index: IntegerMap) -> Finished:
    """The question to an index: is this image done, failed for good, or to be asked about?"""

    def finished(ref: ImageRef, get_stamp: Callable[[], FileStamp | None]) -> bool | None:
        prompt = DEFAULT_PROMPT_NAME if ref.prompt is None else ref.prompt
        known = index.get(image_digest(ref.id, prompt))
        if known is None or known == OPEN:
            return None
        stamp = get_stamp()
        if stamp is None or stamp_digest(stamp.bytes, stamp.mtime) != known >> 1:
            return None
        return bool(known & 1)

    return finished


def _entry(outcome: Outcome, is_open: Callable[[str], bool]) -> int:
    """What the index holds of a record."""
    settled = outcome.answered or (outcome.failure is not None and not is_open(outcome.failure))
    return outcome.stamp << 1 | outcome.answered if settled and outcome.stamp is not None else OPEN


MOST_NAMED = 5
LONGEST_VALUE = 60


def refuse_mixture(
    path: str,
    contents: Contents,
    known: Mapping[str, Mapping[str, Any]],
    run: str,
    settings: Mapping[str, Any],
) -> None:
    """Nothing where the file holds records of `run`, or none at all; `known` are settings by run.

    Raises:
        ConfigError: all its records were made with other settings; the message names what differs.
    """
    if contents.other is None or run in contents.runs:
        return
    old = known.get(str(contents.other.get("run")))
    if old is None:  # the lock file is lost: a record tells less, but something
        old = {name: contents.other.get(name) for name in ("model", "backend") if name in settings}
        names = list(old)
    else:
        names = [*settings, *(name for name in old if name not in settings)]
    raise ConfigError(
        f"{path} holds records made with other settings{differences(old, settings, names)}\n"
        "Add --append to keep them and write to the same file, --overwrite to delete them, "
        "or name another file with --output"
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], names: list[str]) -> str:
    """Those of `names` whose values differ, a line each."""
    lines = [
        f"\n  {name}: {_shown(old.get(name))} -> {_shown(new.get(name))}"
        for name in names
        if old.get(name) != new.get(name)
    ]
    if len(lines) > MOST_NAMED:
        lines[MOST_NAMED:] = [f"\n  and {len(lines) - MOST_NAMED} more"]
    return ":" + "".join(lines) if lines else "; which ones is not known any more"


def _shown(value: object) -> str:
    if value is None:
        return "not set"
    text = repr(value)  # control characters of a prompt must not reach the terminal
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


CHUNK = 1 << 20


def repair(path: str, contents: Contents) -> str | None:
    """Complete the last line where only its newline is missing, else cut it off.

    Returns where the bytes cut off are kept, None where none were.

    Raises:
        OSError: the file, or the one that keeps the bytes, cannot be written; nothing is lost.
    """
    if not contents.tail:
        return None
    if contents.tail_is_whole:
        with open(path, "ab", buffering=0) as file:
            file.write(b"\n")
        return None
    kept = f"{path}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    end = Path(path).stat().st_size - contents.tail
    # written behind what is there, for there may be two within a second
    with open(path, "rb") as torn, open(kept, "r+b" if Path(kept).exists() else "wb") as file:
        torn.seek(end)
        file.seek(0, os.SEEK_END)
        while chunk := torn.read(CHUNK):
            if chunk.strip(b"\0"):
                file.write(chunk)
            else:  # zeros without end, as a power cut leaves them, take no place on the disk
                file.seek(len(chunk), os.SEEK_CUR)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    os.truncate(path, end)
    return kept
