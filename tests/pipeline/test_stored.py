"""Stored records and the results that are made of them again."""

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import pytest
from documents import page
from hypothesis import given, settings
from hypothesis import strategies as st
from written_results import answered, failed

from vlmbatch.errors import FailureKind
from vlmbatch.images import ImageFacts
from vlmbatch.pipeline.stored import result_of
from vlmbatch.records import (
    Completion,
    Endpoint,
    Failure,
    Fallback,
    FallbackReason,
    Result,
    Usage,
    to_line,
)
from vlmbatch.strict_json import MOST_LEVELS

TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)
COUNT = st.integers(0, 1 << 53)
SECONDS = st.floats(0, 1e6)
KIND = st.sampled_from(get_args(FailureKind))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FACTS = st.builds(
    ImageFacts,
    sha256=st.none() | TEXT,
    mtime=st.none() | st.floats(0, 1e12),
    **{
        name: st.none() | COUNT
        for name in ("bytes", "width", "height", "sent_width", "sent_height", "sent_bytes", "frames")
    },
)
COMPLETIONS = st.builds(
    Completion,
    text=TEXT,
    model=TEXT,
    finish_reason=TEXT,
    usage=st.builds(Usage, input_tokens=COUNT, output_tokens=COUNT),
    data=JSON,
    logprobs=st.none() | st.dictionaries(TEXT, JSON, max_size=3),
)
FAILURES = st.builds(Failure, kind=KIND, message=TEXT, retryable=st.booleans(), partial=st.none() | TEXT)
FALLBACKS = st.builds(
    Fallback,
    reason=st.sampled_from(get_args(FallbackReason)),
    kind=KIND,
    message=TEXT,
    backend=TEXT,
    endpoint=TEXT,
    model=TEXT,
)
TIMES = st.datetimes(
    datetime(1, 1, 2),
    datetime(9999, 12, 30),
    timezones=st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours))),
)
COMMON = {
    "id": TEXT,
    "endpoint": st.builds(Endpoint, backend=TEXT, url=TEXT, model=TEXT),
    "run": TEXT,
    "started_at": TIMES,
    "duration_s": SECONDS,
    "image": FACTS,
    "more_images": st.lists(FACTS, max_size=2).map(tuple),
    "prompt": TEXT,
    "attempts": COUNT,
    "warnings": st.lists(TEXT, max_size=2).map(tuple),
    "duplicate_of": st.none() | TEXT,
    "cached": st.booleans(),
    "fallback": st.none() | FALLBACKS,
    "cost": st.none() | SECONDS,
}
RESULTS = st.builds(Result, completion=COMPLETIONS, **COMMON) | st.builds(Result, failure=FAILURES, **COMMON)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]
HOSTILE = (
    None, True, False, 0, 1, -1, 1.5, 10**400, float("nan"), float("inf"), "", "ok",
    "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-11-22", "\ud800", b"x",
    [], [None], [1], ["x"], {}, {"x": 1}, {"kind": []}, DEEP, {"data": DEEP}, object(),
)  # fmt: skip


@settings(max_examples=60)
@given(RESULTS)
def test_a_result_can_be_made_of_its_record(result: Result) -> None:
    """The result of any record has the same record, also if the record was JSON in between."""
    record = result.to_record()
    assert result_of(record).to_record() == record
    read = json.loads(to_line(record))
    assert result_of(read).to_record() == read


def test_the_records_of_the_page_can_be_read() -> None:
    """The result of each example of docs/records.md has exactly this record."""
    examples = [
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", page("docs/records.md"), re.DOTALL)
    ]
    records = [example for example in examples if "id" in example]
    assert {record["status"] for record in records} == {"ok", "error"}
    for record in records:
        assert result_of(record).to_record() == record


def test_answers_of_real_engines_survive() -> None:
    """Each recorded reply of an engine, as the text and the data of an answer, is unchanged."""
    replies = [
        reply["body"]
        for file in sorted((Path(__file__).parents[1] / "wire").glob("*.json"))
        for reply in json.loads(file.read_text())
    ]
    assert len(replies) > 100
    for body in replies:
        completion = Completion(text=json.dumps(body), model="m", finish_reason="stop", data=body)
        record = replace(answered("a.jpg"), completion=completion).to_record()
        assert result_of(json.loads(to_line(record))).to_record() == record


def test_data_may_be_nested_as_deep_as_an_answer_may() -> None:
    """An answer with the most levels of JSON is read, and one with a level more is refused."""
    data: Any = 1
    for _ in range(MOST_LEVELS):
        data = [data]
    record = answered("a.jpg").to_record() | {"data": data}
    assert result_of(record).to_record() == record
    with pytest.raises(ValueError, match="not a record"):
        result_of(record | {"data": [data]})


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in a record, with each of its keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(pairs):
        yield value, key
        if isinstance(child, dict | list):
            yield from places(child)


def mutations(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The record with one value removed, renamed, or replaced by a hostile one."""
    for number in range(len(list(places(record)))):
        for change in (*map(replacing, HOSTILE), removing, renaming):
            copy = deepcopy(record)
            change(*list(places(copy))[number])
            yield copy


def replacing(value: object) -> Callable[[Any, Any], None]:
    """Puts this value in the place of another."""
    return lambda container, key: container.__setitem__(key, value)


def removing(container: Any, key: Any) -> None:
    """Removes a value."""
    del container[key]


def renaming(container: Any, key: Any) -> None:
    """Gives a value an unknown name, if it has a name."""
    if isinstance(container, dict):
        container["unknown"] = container.pop(key)


def test_a_hostile_record_gives_only_a_value_error() -> None:
    """Records with a wrong, missing or hostile value are refused, or are whole records after all."""
    fallback = Fallback(
        reason="rejected", kind="rejected", message="no", backend="ollama", endpoint="http://x", model="m"
    )
    more = {"more_images": (ImageFacts(sha256="a"),), "duplicate_of": "b", "cached": True}
    one = answered("a.jpg", warnings=("w",), cost=0.5, fallback=fallback, **more)
    logged = replace(one.completion, data={"a": [1]}, logprobs={"tokens": [{"logprob": -0.5}]})
    lost = replace(one, completion=None, failure=Failure(kind="empty", message="m", partial="p"))
    refused = 0
    for hostile in (*mutations(replace(one, completion=logged).to_record()), *mutations(lost.to_record())):
        try:
            record = result_of(hostile).to_record()
        except ValueError:
            refused += 1
        else:
            assert result_of(json.loads(to_line(record))).to_record() == record
    assert refused > 1000
    for hostile in HOSTILE:
        with pytest.raises(ValueError, match="not a record"):
            result_of(hostile)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("duration_s", None),
        ("attempts", None),
        ("attempts", 1.5),
        ("v", True),
        ("started_at", "0001-01-01T00:00:00+14:00"),
        ("started_at", "2026-11-22T10:00:00"),
        ("warnings", "none"),
        ("cached", "no"),
        ("fallback", []),
        ("images", []),
        ("data", float("nan")),
        ("cost", float("nan")),
    ],
)
def test_a_wrong_value_is_never_taken_for_another(key: str, value: object) -> None:
    """Values that look empty, or nearly right, are refused, too."""
    made = answered if key == "data" else failed
    with pytest.raises(ValueError, match="not a record"):
        result_of(made("a.jpg").to_record() | {key: value})


def test_times_are_read_in_utc() -> None:
    """The time of a result is in UTC, whatever zone the record has."""
    record = answered("a.jpg").to_record() | {"started_at": "2026-11-22T12:00:00+02:00"}
    assert result_of(record).started_at == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert result_of(record).to_record()["started_at"] == "2026-11-22T10:00:00.000Z"
