"""The facts that are kept of an output when it is read back."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from written_results import RUN, answered, failed

from vlmbatch.records import to_line
from vlmbatch.writers.line_parser import answer_digest
from vlmbatch.writers.resume import LONGEST_LINE, read_contents


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
    assert len(contents.index) == 1


def test_the_memory_for_a_record_is_small(output: Path) -> None:
    """Reading back twenty thousand answers of a thousand bytes keeps less than 80 bytes each."""
    with output.open("wb") as file:
        for number in range(20_000):
            file.write(content(f"{number:064}", f"{number}.jpg", response="x" * 1000))
    tracemalloc.start()
    try:
        contents = read_contents(str(output), RUN, retry_failed=False)
        assert tracemalloc.get_traced_memory()[0] < 80 * 20_000
    finally:
        tracemalloc.stop()
    assert len(contents.index) == len(contents.answers) == 20_000
