"""The record: its keys, and that its line preserves any text."""

import json
import pickle
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_results import STAMP, answered, failed

from vlmbatch.errors import ImageFailed
from vlmbatch.images import FileStamp, ImageFacts, PreparedImage
from vlmbatch.records import Completion, Endpoint, Failure, Result, Summary, Usage, to_line

ANY_TEXT = st.text(
    st.characters(exclude_categories=[]) | st.sampled_from("\0\x1b\x7f\x85\u2028\u2029\ud800\udcff")
)

PREPARED = PreparedImage(
    data=b"",
    media_type="image/jpeg",
    width=1024,
    height=768,
    original_width=4000,
    original_height=3000,
    sent_bytes=143210,
    frames=2,
)
ENDPOINT = Endpoint(backend="ollama", url="http://127.0.0.1:11434", model="llava:7b")
STARTED_AT = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)


def result(**outcome: Any) -> Result:
    """A result in which every field has a value."""
    return Result(
        id="photos/cat.jpg",
        endpoint=ENDPOINT,
        run="9f3c2a1b7d04",
        started_at=STARTED_AT,
        duration_s=2.31049,
        image=ImageFacts.of(FileStamp(bytes=2311040, mtime=1763800000.5), "e3b0" * 16, PREPARED),
        attempts=1,
        warnings=("its colour profile is broken and was ignored",),
        **outcome,
    )


IMAGE = {
    "sha256": "e3b0" * 16,
    "bytes": 2311040,
    "mtime": 1763800000.5,
    "width": 4000,
    "height": 3000,
    "sent_width": 1024,
    "sent_height": 768,
    "sent_bytes": 143210,
    "frames": 2,
}


def test_the_record_of_an_answer() -> None:
    """The record of an answered image has exactly these keys and values, and starts with v, id and status."""
    completion = Completion(
        text="A grey cat.",
        model="llava:7b-v1.6",
        finish_reason="stop",
        usage=Usage(input_tokens=612, output_tokens=48),
    )
    record = result(completion=completion).to_record()
    assert record == {
        "v": 1,
        "id": "photos/cat.jpg",
        "status": "ok",
        "prompt": "default",
        "response": "A grey cat.",
        "data": None,
        "error": None,
        "model": "llava:7b-v1.6",
        "backend": "ollama",
        "endpoint": "http://127.0.0.1:11434",
        "finish_reason": "stop",
        "usage": {"input_tokens": 612, "output_tokens": 48},
        "image": IMAGE,
        "warnings": ["its colour profile is broken and was ignored"],
        "attempts": 1,
        "started_at": "2026-11-22T10:00:00.123Z",
        "duration_s": 2.31,
        "run": "9f3c2a1b7d04",
    }
    assert list(record)[:3] == ["v", "id", "status"]  # resuming reads these first


def test_the_record_of_a_failure() -> None:
    """The record of a failure has the same keys, null for each answer value, and the requested model."""
    failure = Failure(kind="truncated", message="too long", partial="A grey")
    record = result(failure=failure).to_record()
    assert {
        key: record[key] for key in ("status", "response", "error", "model", "finish_reason", "usage")
    } == {
        "status": "error",
        "response": None,
        "error": {"kind": "truncated", "message": "too long", "retryable": False, "partial": "A grey"},
        "model": "llava:7b",
        "finish_reason": None,
        "usage": None,
    }
    assert list(record) == list(answered("a").to_record())
    assert record["image"] == IMAGE


def test_unknown_facts_are_null() -> None:
    """The record of an unreadable image has all keys of `image`, and null for each unknown value."""
    unread = replace(failed("gone.jpg"), image=ImageFacts.of(None, None)).to_record()
    assert list(unread["image"]) == list(IMAGE)
    assert set(unread["image"].values()) == {None}
    undecoded = failed("bad.jpg", stamp=STAMP).to_record()["image"]
    assert {key for key, value in undecoded.items() if value is not None} == {"bytes", "mtime"}


def test_a_result_is_either_an_answer_or_a_failure() -> None:
    """A result with both a completion and a failure, or with neither, is refused."""
    completion = Completion(text="x", model="m", finish_reason="stop")
    failure = Failure(kind="empty", message="nothing")
    with pytest.raises(ValueError, match="either a completion or a failure"):
        result()
    with pytest.raises(ValueError, match="either a completion or a failure"):
        result(completion=completion, failure=failure)
    assert result(completion=completion).ok
    assert not result(failure=failure).ok


def test_times_are_in_utc() -> None:
    """`started_at` is in UTC with milliseconds, whatever its time zone was."""
    there = STARTED_AT.astimezone(timezone(timedelta(hours=-7)))
    assert replace(answered("a"), started_at=there).to_record()["started_at"] == "2026-11-22T10:00:00.123Z"


def units(text: str) -> bytes:
    """Return the UTF-16 code units: JSON joins two adjacent surrogates to one character."""
    return text.encode("utf-16", "surrogatepass")


@given(name=ANY_TEXT, text=ANY_TEXT, message=ANY_TEXT)
def test_a_line_preserves_any_text(name: str, text: str, message: str) -> None:
    """A line is ASCII, has its only line break at the end, and preserves every name and answer."""
    failure = Failure(kind="bad_image", message=message, partial=text)
    for made in (answered(name, text), replace(failed(name), failure=failure)):
        line = to_line(made.to_record())
        assert line.isascii()
        assert line.decode().splitlines(keepends=True) == [line.decode()]
        record = json.loads(line)
        assert units(record["id"]) == units(name)
        assert units(record["response"] if made.ok else record["error"]["partial"]) == units(text)


@given(st.binary())
def test_a_line_preserves_a_file_name_of_any_bytes(raw: bytes) -> None:
    """A file name that is not UTF-8 is the same after it was written to and read from a record."""
    name = raw.decode("utf-8", "surrogateescape")
    assert json.loads(to_line(answered(name).to_record()))["id"].encode("utf-8", "surrogateescape") == raw


def test_usages_add_up() -> None:
    """Usages can be summed, and a new summary has no tokens."""
    total = sum((Usage(input_tokens=n, output_tokens=2 * n) for n in range(5)), Usage())
    assert asdict(total) == {"input_tokens": 10, "output_tokens": 20}
    assert Summary().usage == Usage()


def test_the_short_names_of_an_outcome() -> None:
    """`text`, `parsed` and `error` are parts of the completion and the failure, or None."""
    done = result(completion=Completion(text="a cat", model="m", finish_reason="stop", parsed=7))
    lost = result(failure=Failure(kind="empty", message="the answer is empty"))
    assert (done.text, done.parsed, done.error) == ("a cat", 7, None)
    assert (lost.text, lost.parsed, lost.error) == (None, None, "the answer is empty")


def test_raise_for_failure() -> None:
    """It returns the completion; for a failure it raises an error with the image and the reason."""
    done = result(completion=Completion(text="a cat", model="m", finish_reason="stop"))
    assert done.raise_for_failure() is done.completion
    lost = result(failure=Failure(kind="empty", message="the answer is empty"))
    with pytest.raises(ImageFailed, match=r"^photos/cat\.jpg: the answer is empty$") as raised:
        lost.raise_for_failure()
    carried = pickle.loads(pickle.dumps(raised.value))
    assert (str(carried), carried.id, carried.failure) == (str(raised.value), lost.id, lost.failure)


def test_a_result_is_shown_in_one_line() -> None:
    """A result shows its id and its outcome in at most 80 characters; a summary shows its counts."""
    done = result(completion=Completion(text="a grey\ncat", model="m", finish_reason="stop"))
    assert repr(done) == r"Result(id='photos/cat.jpg', text='a grey\ncat')"
    lost = result(failure=Failure(kind="empty", message="empty " * 100))
    assert repr(lost) == "Result(id='photos/cat.jpg', error='empty empty empty empty empty empty empty...)"
    assert len(repr(lost)) == 80
    shown = "Summary(total=1234567, succeeded=1234566, failed=0, cached=3, duration_s=2.5, stopped=True)"
    summary = Summary(total=1234567, succeeded=1234566, cached=3, duration_s=2.5, stopped=True)
    assert repr(summary) == shown
