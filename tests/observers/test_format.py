"""The format of numbers, summaries and foreign text for the user."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmbatch.observers import clean, summary_line
from vlmbatch.observers.format import countdown, duration, not_read
from vlmbatch.records import Summary, Usage


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31;1mred\x1b[0m b", "ared b"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
        ("a\x1b]never ends", "anever ends"),
        ("a\x1b[2J\x1bcb\x1b(B", "ab"),
        ("a\x9b31mb\x9d0;t\x9cc", "abc"),
        ("a\x1b", "a "),
        ("a\r\nb\tc\0d\x7f", "a  b c d "),
        ("a\u2028b\u202ec\u200b", "a b c "),
        ("caf\udce9 \ud83d", "caf\ufffd \ufffd"),
        ("größe 猫 🐈", "größe 猫 🐈"),
    ],
)
def test_foreign_text_cannot_control_a_terminal(text: str, shown: str) -> None:
    """clean() removes whole escape sequences, replaces control characters and surrogates, and keeps words."""
    assert clean(text) == shown


@given(st.text(st.characters() | st.sampled_from("\x1b[]\x07\x9b\ud800\udcff;m")))
def test_cleaned_text_is_printable_utf_8(text: str) -> None:
    """Any cleaned text is printable and UTF-8, and cleaning it again changes nothing."""
    shown = clean(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert clean(shown) == shown


@pytest.mark.parametrize(
    ("summary", "line"),
    [
        (Summary(), "no images found (0 other files, 0 folders or files that could not be read)"),
        (
            Summary(ignored=1, unreadable=1),
            "no images found (1 other file, 1 folder or file that could not be read)",
        ),
        (
            Summary(total=4, succeeded=4, duration_s=2, usage=Usage(output_tokens=80)),
            "finished: 4 answered in 2.0 s (2.0 images/s, 80 tokens)",
        ),
        (Summary(total=3, skipped=3, duration_s=0.04), "finished: 0 answered, 3 done before in 0.0 s"),
        (
            Summary(total=9, succeeded=1, failed=2, skipped=3, failed_before=3, duration_s=70),
            "finished: 1 answered, 2 failed, 3 done before, 3 failed before (--retry-failed retries them) "
            "in 1m 10s (0.0 images/s, 0 tokens)",
        ),
        (
            Summary(total=1, failed=1, ignored=7, unreadable=2, duration_s=1),
            "finished: 0 answered, 1 failed, 7 other files ignored, "
            "2 folders or files could not be read in 1.0 s",
        ),
        (Summary(stopped=True, duration_s=3), "stopped: 0 answered in 3.0 s"),
        (
            Summary(ignored=4, ignored_kinds={"PDF": 3, "ZIP": 1}),
            "no images found (4 other files, 0 folders or files that could not be read); "
            "3 PDF, 1 ZIP: not read",
        ),
        (
            Summary(
                total=2, succeeded=2, frames=1, ignored=9, ignored_kinds={"CBZ": 1, "PDF": 3}, duration_s=1
            ),
            "finished: 2 answered, 1 with several pages or frames (only the first was read), "
            "9 other files ignored (3 PDF, 1 CBZ: not read) in 1.0 s (2.0 images/s, 0 tokens)",
        ),
        (
            Summary(skipped_entries={"hidden": 1}),
            "no images found (0 other files, 0 folders or files that could not be read); "
            "1 hidden or system entry skipped (1 hidden)",
        ),
        (
            Summary(total=1, skipped=1, skipped_entries={"@eaDir": 3, "hidden": 12}, duration_s=1),
            "finished: 0 answered, 1 done before, "
            "15 hidden or system entries skipped (12 hidden, 3 @eaDir) in 1.0 s",
        ),
        (
            Summary(total=3, succeeded=3, reduced=2, duration_s=1),
            "finished: 3 answered, 2 of them with a smaller picture, since a larger one did not fit in 1.0 s "
            "(3.0 images/s, 0 tokens)",
        ),
    ],
)
def test_the_summary_line(summary: Summary, line: str) -> None:
    """The summary line has each count that is not zero, and no other."""
    assert summary_line(summary) == line


def test_times_are_short() -> None:
    """Durations and countdowns have a short form."""
    assert [duration(s) for s in (0.04, 59.94, 59.96, 245, 7380)] == [
        "0.0 s",
        "59.9 s",
        "1m 00s",
        "4m 05s",
        "2h 03m",
    ]
    assert [countdown(s) for s in (None, 0, 31.6, 245, 7390)] == ["-:--", "0:00", "0:32", "4:05", "2:03:10"]


def test_the_most_frequent_kinds_are_named() -> None:
    """Of many kinds of files that were not read, the six most frequent are named; equal ones by name."""
    kinds = {"AI": 1, "CR2": 9, "MOV": 2, "PDF": 3, "PSD": 1, "SVG": 1, "TAR": 1, "ZIP": 1}
    assert not_read(kinds) == "9 CR2, 3 PDF, 2 MOV, 1 AI, 1 PSD, 1 SVG, 2 of other kinds: not read"
