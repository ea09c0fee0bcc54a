"""The facts that are kept of an output when it is read back."""

import json
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_results import RUN, answered, failed

from vlmbatch.integer_map import IntegerMap
from vlmbatch.records import to_line
from vlmbatch.writers.line_parser import answer_digest, image_digest, outcome_of
from vlmbatch.writers.resume import LONGEST_LINE, OPEN, read_contents


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def content(sha256: str, image: str, prompt: str = "default", **changes: Any) -> bytes:
    """The line of an answer to an image of this content."""
    record = answered(image, prompt=prompt).to_record() | changes
    record["image"]["sha256"] = sha256
    return to_line(record)


def test_the_answers_to_a_content_are_found_again(output: Path) -> None:
    """The index has the line of this run's last answer to each content and prompt, without copies."""
    lines = [
        content("1", "first.jpg"),
        content("2", "second.jpg"),
        b"no record\n",
        content("1", "last.jpg"),
        content("1", "copy.jpg", duplicate_of="last.jpg"),
        content("1", "other prompt.jpg", "colours"),
        content("1", "other run.jpg", run="other"),
        content("1", "failed.jpg", status="error"),
        content("3", "failed.jpg", status="error"),
        b" \n" * 3,
        content("4", "own.jpg", duplicate_of=None),
        content("5", "torn.jpg")[:-9],
    ]
    output.write_bytes(b"".join(lines))
    answers = read_contents(str(output), RUN, retry_failed=False).answers
    found = {}
    for sha256, prompt in [*((n, "default") for n in "12345"), ("1", "colours")]:
        start = answers.get(answer_digest(sha256, prompt))
        if start is not None:
            found[sha256, prompt] = json.loads(output.read_bytes()[start:].splitlines()[0])["id"]
    assert found == {
        ("1", "default"): "last.jpg",
        ("1", "colours"): "other prompt.jpg",
        ("2", "default"): "second.jpg",
        ("4", "default"): "own.jpg",
    }


def test_a_place_behind_a_line_longer_than_any_record_is_found(output: Path) -> None:
    """The offset of a line is right behind a line that is too long to be held."""
    junk = b"x" * (LONGEST_LINE + 7) + b"\n"
    output.write_bytes(content("1", "a.jpg") + junk + content("2", "b.jpg"))
    contents = read_contents(str(output), RUN, retry_failed=False)
    assert contents.answers.get(answer_digest("2", "default")) == len(content("1", "a.jpg") + junk)
    assert contents.bad_lines == 1


@pytest.mark.parametrize("kind", [[], {}, None, 7])
def test_a_failure_of_no_known_kind_stands(output: Path, kind: object) -> None:
    """A failure whose kind was edited to no valid kind counts as permanent."""
    record = failed("a").to_record()
    record["error"]["kind"] = kind
    output.write_bytes(to_line(record))
    contents = read_contents(str(output), RUN, retry_failed=False, again=frozenset({"truncated"}))
    assert contents.index.get(image_digest("a", "default")) not in (None, OPEN)


RECORDS = st.builds(
    dict,
    id=st.sampled_from(["a.jpg", "b.jpg", "\u00e9.jpg"]),
    status=st.sampled_from(["ok", "ok", "error"]),
    prompt=st.sampled_from(["default", "\u00fc"]),
    run=st.sampled_from([RUN, RUN, "other"]),
    error=st.sampled_from(
        [None, {"kind": "decode_error", "retryable": False}, {"kind": "x", "retryable": True}]
    ),
    image=st.builds(
        dict,
        sha256=st.sampled_from(["1", "2", None]),
        bytes=st.sampled_from([7, 7, 8, None]),
        mtime=st.sampled_from([1.5, 1.5, 2, None]),
    ),
    duplicate_of=st.sampled_from([None, None, "b.jpg"]),
)


@given(changes=st.lists(RECORDS, max_size=8))
def test_any_records_are_noted_with_the_outcomes_of_json(changes: list[dict[str, Any]]) -> None:
    """The last record of an image and prompt counts, and each answer is found, as by json alone."""
    records = [answered("a.jpg").to_record() | change for change in changes]
    index, answers, start = IntegerMap(), IntegerMap(), 0
    images, known = set[int](), set[int]()
    for record in records:
        run, image, version, ok, failure, answer = outcome_of(record)
        if run == RUN:
            settled = (ok or failure is not None) and version is not None
            index[image] = version << 1 | ok if settled and version is not None else OPEN
            images.add(image)
            if answer is not None:
                answers[answer] = start
                known.add(answer)
        start += len(to_line(record))
    with TemporaryDirectory() as folder:
        output = Path(folder, "out.jsonl")
        output.write_bytes(b"".join(map(to_line, records)))
        contents = read_contents(str(output), RUN, retry_failed=False)
    assert [contents.index.get(image) for image in images] == [index.get(image) for image in images]
    assert [contents.answers.get(each) for each in known] == [answers.get(each) for each in known]
    assert contents.runs == {record["run"] for record in records}


def test_the_memory_for_a_record_is_small(output: Path) -> None:
    """Reading back twenty thousand answers of a thousand bytes takes 40 bytes each, plus 6 MB."""
    with output.open("wb") as file:
        for number in range(20_000):
            file.write(content(f"{number:064}", f"{number}.jpg", response="x" * 1000))
    tracemalloc.start()
    try:
        contents = read_contents(str(output), RUN, retry_failed=False)
        assert contents.runs == {RUN}
        assert tracemalloc.get_traced_memory()[0] < 40 * 20_000 + 6_000_000
    finally:
        tracemalloc.stop()
