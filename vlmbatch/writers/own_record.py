"""Reads lines of records that vlmbatch has written, with msgspec: it takes a tenth of the time of json.

Only the values that a later run needs are read. msgspec checks that the others are JSON. There it accepts
larger numbers and deeper nesting than json does. Numbers have limits, so that msgspec and json read the same
values: msgspec would round a large whole number in the place of a fraction. json reads all other lines.
"""

from typing import Annotated, Literal

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import Decoder

from vlmbatch.writers.line_parser import (
    Outcome,
    answer_digest,
    image_digest,
    outcome_of,
    parse,
    recorded_version,
)

Whole = Annotated[int, Meta(ge=-(2**62), le=2**62)]
Time = Annotated[float, Meta(ge=-(2**52), le=2**52)]


class Error(Struct, gc=False):
    """A failure."""

    kind: str
    retryable: bool


class Image(Struct, gc=False):
    """The content of an image, and the stamp of its file."""

    sha256: str | None
    bytes: Whole | None
    mtime: Time | None


class OwnRecord(Struct, gc=False):
    """The values of a record that a later run needs (docs/records.md)."""

    v: Literal[1]
    id: str
    status: str
    prompt: str
    error: Error | None
    image: Image
    run: str
    duplicate_of: str | None = None

    @property
    def is_file_answer(self) -> bool:
        """Whether this is an answer about a file whose name is ASCII. Almost all records are."""
        facts = self.image
        return (
            self.status == "ok"
            and self.duplicate_of is None
            and facts.sha256 is not None
            and facts.bytes is not None
            and facts.mtime is not None
            and self.id.isascii()
        )


decode = Decoder(OwnRecord).decode


def read_own(line: bytes) -> OwnRecord | None:
    """The record in a line, or None if json must read it."""
    if not line.isascii():  # msgspec does not check the UTF-8 of texts that it skips
        return None
    try:
        return decode(line)
    except (MsgspecError, RecursionError):
        return None


def read_outcome(line: bytes, own: OwnRecord | None) -> Outcome | None:
    """The outcome in a line of an output, or None if it holds no record. `own` is what `read_own` returns."""
    if own is None:
        record = parse(line)
        return None if record is None else outcome_of(record)
    answered, error = own.status == "ok", own.error
    failure = None if answered or error is None or error.retryable else error.kind
    content = own.image.sha256 if answered and own.duplicate_of is None else None
    answer = None if content is None else answer_digest(content, own.prompt)
    version = recorded_version(own.image.bytes, own.image.mtime, own.image.sha256)
    return own.run, image_digest(own.id, own.prompt), version, answered, failure, answer
