"""Parses a line of an output with json, into the outcome that the next run needs; does not read files."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from vlmbatch import strict_json
from vlmbatch.images import FileStamp, ImageVersion
from vlmbatch.records import DEFAULT_PROMPT_NAME

LARGEST = (1 << 64) - 1
"""The largest digest."""
LARGEST_VERSION = LARGEST >> 1
"""The largest digest of a version: its place in an index has one bit more."""


Outcome: TypeAlias = tuple[str, int, int | None, bool, str | None, int | None]
"""The facts of a record that the next run needs: run, image, version, answered, failure and answer.

Three are digests. Image: of the id of the image and its prompt. Version: of the image version, or None if the
image was never read. Answer: of the content and the prompt, or None if the image has no answer of its own.
The failure is the kind of a permanent failure. It is a plain tuple, since a resumed run makes a million.
"""


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
    version = recorded_version(facts.get("bytes"), facts.get("mtime"), facts.get("sha256"))
    return str(record.get("run")), image_digest(record["id"], prompt), version, answered, failure, answer


def image_digest(image_id: str, prompt: str) -> int:
    """64 bits that stand for an image and its prompt within this process."""
    if image_id.isascii():
        return hash((image_id, prompt)) & LARGEST
    # UTF-16 can encode any file name, and treats a surrogate pair as one character, like JSON
    return hash((image_id.encode("utf-16-le", "surrogatepass"), prompt)) & LARGEST


def answer_digest(sha256: str, prompt: str) -> int:
    """64 bits that stand for the content of an image and its prompt within this process."""
    return hash((sha256, prompt)) & LARGEST


def version_digest(version: ImageVersion) -> int:
    """A digest of 63 bits, only for use within this process."""
    return hash(version) & LARGEST_VERSION


def recorded_version(size: object, mtime: object, sha256: object) -> int | None:
    """The digest of the version of an image, from the facts in its record; None if it was never read."""
    if size is None and mtime is None and isinstance(sha256, str):  # an image in memory
        return version_digest(sha256)
    if not isinstance(size, int) or not isinstance(mtime, int | float):
        return None
    return version_digest(FileStamp(size, mtime))
