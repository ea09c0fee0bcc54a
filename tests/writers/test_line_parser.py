"""The pattern and json read the same outcome from a line."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_results import ENDPOINT, RUN, failed

from vlmbatch.images import ImageFacts
from vlmbatch.records import Completion, Result, Usage, to_line
from vlmbatch.writers.line_parser import ANSWER_LINE, Outcome, outcome_of, parse, read_outcome

ANY_TEXT = st.text(
    st.characters(exclude_categories=()) | st.sampled_from('\0\x1b\x7f\x85\u2028\ud800\udc00"\\/ab')
)
PLAIN_TEXT = st.text("abc /.:-0")
NUMBERS = st.integers(0, 10**18 - 1)


def line_of(image: str = "a.jpg", prompt: str = "default", text: str = "A cat.", **changes: object) -> bytes:
    """The line of an answer with all its facts."""
    facts = {
        "sha256": "e3b0" * 16, "bytes": 2311040, "mtime": 1763800000.5, "width": 4000, "height": 3000,
        "sent_width": 1024, "sent_height": 768, "sent_bytes": 143210, "frames": 1,
    }  # fmt: skip
    warnings = changes.pop("warnings", ())
    result = Result(
        id=image,
        prompt=prompt,
        endpoint=ENDPOINT,
        run=RUN,
        started_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
        duration_s=2.31,
        completion=Completion(text=text, model="llava:7b", finish_reason="stop", usage=Usage(input_tokens=7)),
        image=ImageFacts(**facts | changes),  # type: ignore[arg-type]  # the types are as above
        attempts=1,
        warnings=warnings,  # type: ignore[arg-type]  # likewise
    )
    return to_line(result.to_record())


ANSWERS = st.builds(
    line_of,
    image=ANY_TEXT,
    prompt=ANY_TEXT,
    text=ANY_TEXT,
    bytes=NUMBERS,
    mtime=st.floats(1, 1e11),
    width=NUMBERS,
    warnings=st.lists(ANY_TEXT, max_size=3).map(tuple),
)
ODD = [
    b"", b'"', b'\\"', b"\\", b"\\x", b"\\u12", b"\\ud800", b"/", b" ", b",", b":", b"{", b"}", b"[", b"]",
    b"0", b"00", b"-1", b".", b".5", b"e5", b"1e999", b"9" * 20, b"9" * 5000, b"null", b"NaN",
    b"\0", b"\x1f", b"\x7f", b"\x80", b"\xc3\xa9", b"\xef\xbb\xbf", b"\n", b"\r\n",
    b'"id":"b.jpg",', b'"run":"other",', b'"duplicate_of":"b.jpg",',
]  # fmt: skip


def by_json(line: bytes) -> Outcome | None:
    record = parse(line)
    return None if record is None else outcome_of(record)


@given(ANSWERS)
def test_every_answer_is_read_by_the_pattern(line: bytes) -> None:
    """The fast pattern reads every answer that a run writes, with the same outcome as json.

    If this fails after a change of records, the template in line_parser.py has to change, too.
    """
    assert ANSWER_LINE.fullmatch(line)
    assert read_outcome(line) == by_json(line)


@settings(max_examples=500)
@given(line=ANSWERS, odd=st.lists(st.sampled_from(ODD), min_size=1, max_size=4), data=st.data())
def test_the_pattern_never_disagrees_with_json(line: bytes, odd: list[bytes], data: st.DataObject) -> None:
    """After any insertion, deletion or replacement in a line, both read the same outcome or none."""
    for piece in odd:
        start = data.draw(st.integers(0, len(line)))
        line = line[:start] + piece + line[start + data.draw(st.sampled_from([0, 1, len(piece)])) :]
    assert read_outcome(line) == by_json(line)


@pytest.mark.parametrize("length", [0, 1])
def test_no_single_change_makes_them_disagree(length: int) -> None:
    """Both read the same for each odd piece at each place of a line, inserted or in place of a byte."""
    line = line_of("a b.jpg", text='A "cat".\n', warnings=("a warning", "another"))
    for place in range(len(line) + 1):
        for piece in ODD:
            changed = line[:place] + piece + line[place + length :]
            assert read_outcome(changed) == by_json(changed), changed


@given(image=ANY_TEXT, prompt=PLAIN_TEXT)
def test_one_image_has_one_digest(image: str, prompt: str) -> None:
    """The same image and prompt have the same digest in every record, answered or failed."""
    read, other = (read_outcome(line_of(image, prompt, text)) for text in ("a", "b"))
    failure = read_outcome(to_line(failed(image, prompt=prompt).to_record()))
    assert read is not None
    assert other is not None
    assert failure is not None
    assert read.image == other.image == failure.image
    assert read.answer == other.answer != failure.answer
