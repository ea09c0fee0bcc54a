"""Reads an output file back: finds the finished images, checks the file and repairs its end.

Memory is about 40 bytes per image, for answers of any length.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from vlmbatch.errors import ConfigError, FailureKind
from vlmbatch.images import ImageRef, ImageVersion
from vlmbatch.integer_map import IntegerMap
from vlmbatch.protocols import Finished
from vlmbatch.records import DEFAULT_PROMPT_NAME
from vlmbatch.writers.beside import open_beside
from vlmbatch.writers.line_parser import LARGEST, LARGEST_VERSION, image_digest, parse, version_digest

RECORD_START = b'{"v":1,"id":"'
BLANK = b"\0 \t\r\n"
HEAD_BYTES = CHUNK = 1 << 20
LONGEST_LINE = 1 << 24
"""In bytes: an answer of a million tokens has four million."""
OPEN = 0
"""The value in an index for an image that must be processed again."""


@dataclass(slots=True)
class Contents:
    """The content of an output file. `tail` is the number of bytes behind its last newline.

    `index` maps the `image_digest` of each image and prompt to `version_digest` * 2 + answered, or to
    OPEN. `answers` has the `answer_digest` of each content and prompt, and the offset of the answer's
    line, without copies of answers. `other` is the line of the last record of another run; `runs` are the
    digests of all runs.
    """

    index: IntegerMap = field(default_factory=IntegerMap)
    answers: IntegerMap = field(default_factory=IntegerMap)
    runs: set[str] = field(default_factory=set)
    other: bytes | None = None
    bad_lines: int = 0
    tail: int = 0
    tail_is_whole: bool = False


def read_contents(
    path: str, run: str, *, retry_failed: bool, again: frozenset[FailureKind] = frozenset()
) -> Contents:
    """Read all lines once, and index those of `run`; the last line of an image and prompt counts.

    A permanent failure counts as finished, unless `retry_failed` is set or its kind is among `again`.

    Raises:
        ConfigError: the file does not belong to vlmbatch.
        OSError: the file cannot be read.
    """
    from vlmbatch.writers.own_record import (  # importing msgspec takes 10 ms
        OwnRecord,
        read_outcome,
        read_own,
    )

    contents = Contents()

    def note(line: bytes, own: OwnRecord | None, start: int) -> None:
        """Add any line to the contents. `own` is the result of `read_own` for it."""
        outcome = read_outcome(line, own)
        if outcome is None:
            contents.bad_lines += line.endswith(b"\n") and bool(line.strip(b" \t\r\n"))
            return
        record_run, image, version, answered, failure, answer = outcome
        contents.runs.add(record_run)
        if record_run != run:
            contents.other = line
            return
        is_settled = answered or (failure is not None and not retry_failed and failure not in again)
        contents.index[image] = version << 1 | answered if is_settled and version is not None else OPEN
        if answer is not None:
            contents.answers[answer] = start

    refuse_foreign(path)
    index, answers, runs = contents.index, contents.answers, contents.runs
    start, size, line = 0, 0, b"\n"
    with open(path, "rb", buffering=CHUNK) as file:
        for line, size in lines(file):
            own = read_own(line)
            if own is not None and own.run == run and own.is_file_answer:
                # the same as note(), without its calls: these took a tenth of the time
                facts, prompt = own.image, own.prompt
                version = hash((facts.bytes, facts.mtime)) & LARGEST_VERSION
                index[hash((own.id, prompt)) & LARGEST] = version << 1 | 1
                answers[hash((facts.sha256, prompt)) & LARGEST] = start
                runs.add(run)
            else:
                note(line, own, start)
            start += size
    if not line.endswith(b"\n"):
        contents.tail, contents.tail_is_whole = size, read_outcome(line, read_own(line)) is not None
    return contents


def lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line and its size in bytes.

    For a line longer than any record, like the gigabytes of zeros that a crash may leave, only its beginning
    is returned, with its newline if it has one.
    """
    while line := file.readline(LONGEST_LINE):
        size, more = len(line), line
        while not more.endswith(b"\n") and len(more) == LONGEST_LINE:
            more = file.readline(LONGEST_LINE)
            size += len(more)
        whole = more is line or not more.endswith(b"\n")
        yield (line if whole else line + b"\n"), size


def refuse_foreign(path: str) -> None:
    """Refuse to append to or overwrite a file that vlmbatch has not written, like a picture or a thesis.

    Raises:
        ConfigError: the file does not belong to vlmbatch.
        OSError: the file cannot be read.
    """
    if not Path(path).is_file():  # a pipe would block
        return
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        if not is_ours(head) or (not head.strip(BLANK) and file.read(1)):
            raise ConfigError(
                f"{path} contains something other than vlmbatch records and was left unchanged; "
                "name another file with --output"
            )


def is_ours(head: bytes) -> bool:
    """Whether the file belongs to vlmbatch: it is empty, or begins with a record or the start of one."""
    start = head.lstrip(BLANK)
    first, newline, _ = start.partition(b"\n")
    torn = not newline and RECORD_START.startswith(first.rstrip(b"\0"))
    return torn or first.startswith(RECORD_START) or parse(first) is not None


def finished_by(index: IntegerMap) -> Finished:
    """A function that looks up in the index whether an image is done, permanently failed, or open."""

    def finished(ref: ImageRef, get_version: Callable[[ImageRef], ImageVersion | None]) -> bool | None:
        prompt = DEFAULT_PROMPT_NAME if ref.prompt is None else ref.prompt
        known = index.get(image_digest(ref.id, prompt))
        if known is None or known == OPEN:
            return None
        version = get_version(ref)
        if version is None or version_digest(version) != known >> 1:
            return None
        return bool(known & 1)

    return finished


MOST_NAMED = 5
LONGEST_VALUE = 60
SHARED_SHOWN = 20


def refuse_mixture(
    path: str,
    contents: Contents,
    known: Mapping[str, Mapping[str, Any]],
    run: str,
    settings: Mapping[str, Any],
) -> None:
    """Refuse a file whose records all come from other settings; `known` has the settings by run.

    Raises:
        ConfigError: no record is of `run`, and there are records of other runs; the message names the
            differences.
    """
    if contents.other is None or run in contents.runs:
        return
    other = parse(contents.other) or {}
    old = known.get(str(other.get("run")))
    if old is None:  # the lock file is lost: a record has at least some settings
        old = {name: other.get(name) for name in ("model", "backend") if name in settings}
        names = list(old)
    else:
        names = [*settings, *(name for name in old if name not in settings)]
    raise ConfigError(
        f"{path} holds records made with other settings{differences(old, settings, names)}\n"
        "Add --append to keep them and ask about all images again, --overwrite to delete them, "
        "or name another file with --output"
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], names: list[str]) -> str:
    """The `names` whose values differ, one per line."""
    lines = [
        f"\n  {name}: {_change(old.get(name), new.get(name))}"
        for name in names
        if old.get(name) != new.get(name)
    ]
    if len(lines) > MOST_NAMED:
        lines[MOST_NAMED:] = [f"\n  and {len(lines) - MOST_NAMED} more"]
    return ":" + "".join(lines) if lines else "; the old settings are no longer known"


def _change(old: object, new: object) -> str:
    """The old and the new value; long texts are cut so that their first difference is visible."""
    # control characters of a prompt must not reach the terminal
    texts = ["not set" if value is None else repr(value) for value in (old, new)]
    insides = [text[1:] for text in texts]  # the quotes of repr depend on the text
    shared = len(os.path.commonprefix(insides))  # noqa: RUF071  # by characters is what is wanted
    start = max(0, shared - SHARED_SHOWN) if shared >= LONGEST_VALUE - SHARED_SHOWN else 0
    was, now = (_cut(text, start) for text in texts)
    return f"was {was}, now {now}"


def _cut(text: str, start: int) -> str:
    text = "..." + text[start:] if start else text
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def repair(path: str, contents: Contents) -> str | None:
    """Complete the last line if only its newline is missing, else move it to another file.

    Returns the name of that file, or None if nothing was moved.

    Raises:
        ConfigError: something else has the name of the other file.
        OSError: one of the two files cannot be written; nothing is lost.
    """
    if not contents.tail:
        return None
    if contents.tail_is_whole:
        with open(path, "ab", buffering=0) as file:
            file.write(b"\n")
        return None
    kept = f"{path}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    end = Path(path).stat().st_size - contents.tail
    # append, since there may be two repairs within a second
    with open(path, "rb") as torn, open(open_beside(kept, os.O_RDWR | os.O_CREAT), "r+b") as file:
        torn.seek(end)
        file.seek(0, os.SEEK_END)
        while chunk := torn.read(CHUNK):
            if chunk.strip(b"\0"):
                file.write(chunk)
            else:  # long runs of zeros, as after a power cut, take no space on the disk
                file.seek(len(chunk), os.SEEK_CUR)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    os.truncate(path, end)
    return kept
