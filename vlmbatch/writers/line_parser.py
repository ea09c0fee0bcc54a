"""Parses a line of an output into the outcome that the next run needs; does not read files.

A line of an answer in exactly the form of `Result.to_record` and `to_line` is parsed by a pattern, in a
quarter of the time of json; any other line by json. Both give the same outcome.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vlmbatch import strict_json
from vlmbatch.records import DEFAULT_PROMPT_NAME

_64_BITS = (1 << 64) - 1

# JSON with one possible reading: no bytes beyond ASCII, and no number that Python would parse differently
_PLAIN = r"[ !#-\[\]-~]*+"
_TEXT = rf'{_PLAIN}(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{{4}}){_PLAIN})*+'
_INT = r"(?:0|[1-9][0-9]{0,17}+)"
_FLOAT = rf"{_INT}\.[0-9]{{1,20}}+"
_VALUES = {
    "<id>": f"(?P<id>{_TEXT})",
    "<prompt>": f"(?P<prompt>{_TEXT})",
    "<sha256>": "(?P<sha256>[0-9a-f]{64})",
    "<bytes>": f"(?P<bytes>{_INT})",
    "<mtime>": f"(?P<mtime>{_FLOAT})",
    "<run>": f"(?P<run>{_PLAIN})",
    "<text>": _TEXT,
    "<texts>": f'(?:"{_TEXT}"(?:,"{_TEXT}")*+)?+',
    "<int>": _INT,
    "<float>": _FLOAT,
}
_ANSWERED = (
    '{"v":1,"id":"<id>","status":"ok","prompt":"<prompt>","response":"<text>","data":null,"error":null,'
    '"model":"<text>","backend":"<text>","endpoint":"<text>","finish_reason":"<text>",'
    '"usage":{"input_tokens":<int>,"output_tokens":<int>},'
    '"image":{"sha256":"<sha256>","bytes":<bytes>,"mtime":<mtime>,"width":<int>,"height":<int>,'
    '"sent_width":<int>,"sent_height":<int>,"sent_bytes":<int>,"frames":<int>},'
    '"warnings":[<texts>],"attempts":<int>,"started_at":"<text>","duration_s":<float>,"run":"<run>"}\n'
)


def _pattern(template: str) -> re.Pattern[bytes]:
    pieces = re.split("(<[a-z0-9]+>)", template)
    return re.compile("".join(_VALUES.get(piece) or re.escape(piece) for piece in pieces).encode())


ANSWER_LINE = _pattern(_ANSWERED)


class Outcome(NamedTuple):
    """The facts of a record that the next run needs; a tuple, since a million of them are created.

    `image`, `stamp` and `answer` are digests: of the image's id and prompt; of the file's size and time, None
    if the file was never read; of the image's content and prompt, None without an answer to this very image.
    `failure` is the kind of a permanent failure.
    """

    run: str
    image: int
    stamp: int | None
    answered: bool
    failure: str | None
    answer: int | None


def read_outcome(line: bytes) -> Outcome | None:
    """The outcome in a line of an output, or None if it holds no record."""
    ours = ANSWER_LINE.fullmatch(line)
    if ours is None:
        record = parse(line)
        return None if record is None else outcome_of(record)
    image, prompt, sha256, size, mtime, run = ours.groups()
    prompt = _text(prompt)
    return Outcome(
        run.decode(),
        image_digest(_text(image), prompt),
        stamp_digest(int(size), float(mtime)),
        True,
        None,
        answer_digest(sha256.decode(), prompt),
    )


def parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line, or None if it holds none."""
    if b"\0" in line:  # json would read it as UTF-16
        return None
    try:
        record = strict_json.loads(line)
    except ValueError:  # a crash or an editor may leave anything
        return None
    if isinstance(record, dict) and "v" in record and isinstance(record.get("id"), str):
        return record
    return None


def outcome_of(record: Mapping[str, Any]) -> Outcome:
    """The outcome in any record, also in one of another program."""
    prompt = str(record.get("prompt", DEFAULT_PROMPT_NAME))
    image, error = record.get("image"), record.get("error")
    facts = image if isinstance(image, dict) else {}
    answered = record.get("status") == "ok"
    failure = answer = None
    if answered and isinstance(facts.get("sha256"), str) and record.get("duplicate_of") is None:
        answer = answer_digest(facts["sha256"], prompt)
    if not answered and isinstance(error, dict) and error.get("retryable") is False:
        failure = str(error.get("kind"))
    return Outcome(
        run=str(record.get("run")),
        image=image_digest(record["id"], prompt),
        stamp=_recorded_stamp(facts),
        answered=answered,
        failure=failure,
        answer=answer,
    )


def image_digest(image_id: str, prompt: str) -> int:
    """64 bits that stand for an image and its prompt within this process."""
    if image_id.isascii():
        return hash((image_id, prompt)) & _64_BITS
    # UTF-16 can encode any file name, and treats a surrogate pair as one character, like JSON
    return hash((image_id.encode("utf-16-le", "surrogatepass"), prompt)) & _64_BITS


def answer_digest(sha256: str, prompt: str) -> int:
    """64 bits that stand for the content of an image and its prompt within this process."""
    return hash((sha256, prompt)) & _64_BITS


def stamp_digest(size: int, mtime: float) -> int:
    """63 bits that stand for a file's size (bytes) and mtime (seconds) within this process."""
    return hash((size, mtime)) & (_64_BITS >> 1)


def _recorded_stamp(facts: Mapping[str, Any]) -> int | None:
    size, mtime = facts.get("bytes"), facts.get("mtime")
    if not isinstance(size, int) or not isinstance(mtime, int | float):
        return None
    return stamp_digest(size, mtime)


def _text(inside: bytes) -> str:
    """The text of a JSON string, given the bytes between its quotes."""
    text: str = json.loads(b'"%b"' % inside) if b"\\" in inside else inside.decode()
    return text
