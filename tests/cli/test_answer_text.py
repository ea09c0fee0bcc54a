"""One result as text: wrapping, JSON, failures, notes, and text that must not control the terminal."""

import io
import json
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console
from run_events import HOSTILE
from written_results import answered, failed

from vlmbatch.cli.answer_text import LONGEST_JSON, NARROWEST, WIDEST, answer_text
from vlmbatch.records import Failure, Result

WORDS = " ".join(f"word{n}" for n in range(400))
KANJI = "\u6f22\u5b57\u306f\u5e45\u304c\u4e8c\u500d\u3067\u3059"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
REPORT = f"""The picture shows:

1. {WORDS[:300]}
   - a nested item that is too long for one row of a narrow terminal, and for one of a wide one, too

The end."""


def printed(result: Result, *, columns: int = 80, is_terminal: bool = True) -> str:
    """What a console of this width gets."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=columns,
        force_terminal=is_terminal,
        color_system="standard" if is_terminal else None,
        no_color=False,
        highlight=False,
    )
    console.print(answer_text(result, console), soft_wrap=True)
    return file.getvalue()


def rows(result: Result, *, columns: int = 80, is_terminal: bool = True) -> list[str]:
    """The printed rows without colours."""
    text = printed(result, columns=columns, is_terminal=is_terminal)
    return re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n")


def styled(result: Result, text: str) -> str:
    """The codes of the style directly before this text."""
    found = re.search(rf"\x1b\[([0-9;]*)m\s*{re.escape(text)}", printed(result))
    return found[1] if found else ""


@pytest.mark.parametrize("columns", [1, 3, 20, 60, 80, 200])
def test_words_are_wrapped_between_spaces(columns: int) -> None:
    """Rows fit a terminal of 20 columns or more, up to 100; every word is whole, and none is lost."""
    name, *answer, last = rows(answered("a.jpg", WORDS), columns=columns)
    assert (name, last) == ("a.jpg", "")
    assert max(map(len, answer)) <= max(NARROWEST, min(columns, WIDEST))
    assert " ".join(" ".join(answer).split()) == WORDS


def test_wide_characters_fill_two_columns() -> None:
    """Rows of wide characters and joined emoji fit the terminal, and no character is lost or replaced."""
    text = f"{KANJI * 20} {FAMILY} and {FAMILY}"
    answer = rows(answered("a.jpg", text), columns=60)[1:-1]
    assert max(map(cell_len, answer)) <= 60
    assert "".join("".join(answer).split()) == "".join(text.split())


def test_paragraphs_and_lists_keep_their_form() -> None:
    """Line breaks stay, and a long list item goes on below its own text."""
    answer = [row[2:] for row in rows(answered("a.jpg", REPORT), columns=60)[1:-1]]
    assert answer[:2] == ["The picture shows:", ""]
    assert answer[-2:] == ["", "The end."]
    first = next(n for n, row in enumerate(answer) if row.startswith("1. "))
    nested = next(n for n, row in enumerate(answer) if row.startswith("   - "))
    assert all(re.match(r"   \S", row) for row in answer[first + 1 : nested])
    assert all(re.match(r"     \S", row) for row in answer[nested + 1 : -2])
    assert len(answer) > nested + 3


def test_a_pipe_gets_whole_lines_without_colours() -> None:
    """Without a terminal no line is wrapped and no code is printed."""
    result = replace(answered("a.jpg", f"{WORDS}\n{KANJI}"), warnings=("a note",))
    assert printed(result, is_terminal=False) == f"a.jpg\n  {WORDS}\n  {KANJI}\n  warning: a note\n"


@pytest.mark.parametrize("with_data", [True, False])
def test_json_has_a_line_for_each_value(with_data: bool) -> None:
    """A JSON answer, with a schema or without, keeps the model's order of keys and its characters."""
    value = {"z": "\u732b", "a": [1, 2.50], "empty": None}
    result = answered("a.jpg", json.dumps(value))
    if with_data:
        assert result.completion is not None
        result = replace(result, completion=replace(result.completion, data=value, text="{}"))
    assert [row[2:] for row in rows(result)[1:-1]] == [
        *("{", '  "z": "\u732b",', '  "a": [', "    1,", "    2.5", "  ],", '  "empty": null', "}")
    ]


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1', "[draft] a cat", "17", "null"])
def test_what_is_no_strict_json_appears_as_it_is(text: str) -> None:
    """An answer that is not one JSON object or array, or would lose a key, appears unchanged."""
    assert rows(answered("a.jpg", text))[1:-1] == [f"  {text}"]


def test_a_million_lines_are_one_segment() -> None:
    """The memory for an answer does not depend on how many lines it has."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    segments = {
        len(list(answer_text(answered("a.jpg", "\n" * lines + "end"), console).segments))
        for lines in (1, 100_000)
    }
    assert len(segments) == 1


def test_long_json_appears_as_it_arrived() -> None:
    """Long JSON gets no line for each value, since deep lists would become 150 times as long."""
    text = "[" * 150 + "1," * LONGEST_JSON + "1" + "]" * 150
    assert len(printed(answered("a.jpg", text))) < len(text) * 1.1


def test_a_failure_is_red_with_its_reason() -> None:
    """A failure shows its kind and message in red, and the part of the answer that arrived."""
    failure = Failure(kind="degenerate", message="it repeats itself; add --accept loop", partial="no no no")
    result = replace(failed("a.jpg"), failure=failure)
    assert rows(result)[:-1] == [
        "a.jpg",
        "  failed (degenerate): it repeats itself; add --accept loop",
        "  the part of the answer that arrived:",
        "  no no no",
    ]
    assert styled(result, "failed (degenerate): it") == "31"


def test_notes_are_dim() -> None:
    """Warnings, the image with the same content and the cache are named in dim text below the answer."""
    result = answered("a.jpg", "A cat.", warnings=("asked twice",), duplicate_of="b.jpg", cached=True)
    notes = ["warning: asked twice", "the same image as b.jpg, so the same answer", "from the cache"]
    assert rows(result)[:-1] == ["a.jpg", "  A cat.", *(f"  {note}" for note in notes)]
    assert [styled(result, note) for note in notes] == ["2"] * 3
    assert styled(result, "a.jpg") == "1;36"
    assert styled(result, "A cat.") == "0", "plain"


def test_foreign_text_cannot_control_the_terminal() -> None:
    """No control character of a name, answer, warning or failure arrives, and markup stays text."""
    failure = Failure(kind="refused", message=HOSTILE, partial=HOSTILE)
    answers = (
        answered(HOSTILE, f"[red]{HOSTILE}[/red]", warnings=(HOSTILE,), duplicate_of=HOSTILE),
        answered("a.jpg", json.dumps({"a": HOSTILE}, ensure_ascii=False)),
        replace(failed(HOSTILE), failure=failure),
    )
    for each in answers:
        text = re.sub(r"\x1b\[[0-9;]*m|\n", "", printed(each).replace("\x1b[31mred", "?"))
        assert text.isprintable(), text
        assert "?" not in text
    assert "[red]xred" in "".join(rows(answers[0]))


def test_an_answer_cannot_pass_for_a_message() -> None:
    """Each line of an answer is indented, whatever breaks its lines, and a name is one line."""
    breaks = "\n\r\x0b\x0c\x1c\x85\u2028\u2029"
    result = answered("a\njpg", "one" + "".join(f"{c}finished: 9 answered" for c in breaks))
    name, *answer, _ = rows(result)
    assert name == "a jpg"
    assert len(answer) == 1 + len(breaks)
    assert all(row.startswith("  ") for row in answer)
