"""One result as text for a person."""

import json
import re
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from vlmbatch import strict_json
from vlmbatch.observers import clean, clean_lines
from vlmbatch.records import Completion, Failure, Result

INDENT = "  "
"""Foreign text is always indented, so that it cannot pass for a message of vlmbatch."""
WIDEST = 100
NARROWEST = 20
"""Rows for a narrower terminal have this many columns, and the terminal breaks them itself."""
LONGEST_JSON = 50_000
"""Longer JSON appears as it arrived: with a line for each value it may become 150 times as long."""
_NAME, _NOTE, _FAILURE = Style(bold=True, color="cyan"), Style(dim=True), Style(color="red")
_LEAD = re.compile(r"\s*(?:(?:[-*+\u2022]|\d{1,3}[.)])\s+)?")
"""The spaces and the mark of a list item at the start of a line."""


def answer_text(result: Result, console: Console) -> Segments:
    """The path and the answer, wrapped to the width of the terminal if the console has one.

    These are segments, since rich needs 2 kB for each line of a `Text`, and an answer may have millions.
    """
    has_width = console.is_terminal and not console.is_dumb_terminal
    width = max(NARROWEST, min(console.width, WIDEST)) - len(INDENT) if has_width else None
    segments = [Segment(clean(result.id), _NAME)]
    for part, style in _parts(result):
        rows = (
            f"\n{INDENT}{row}".rstrip(" ")
            for line in clean_lines(part)
            for row in ([line] if width is None else _wrapped(line, width, console))
        )
        segments.append(Segment("".join(rows), style))
    return Segments([*segments, Segment.line()])


def _parts(result: Result) -> Iterator[tuple[str, Style | None]]:
    """The texts below the path, each with its style."""
    if result.completion is not None:
        yield _answer(result.completion), None
    if result.failure is not None:
        yield from _failure(result.failure)
    for warning in result.warnings:
        yield f"warning: {warning}", _NOTE
    if result.duplicate_of is not None:
        yield f"the same image as {clean(result.duplicate_of)}, so the same answer", _NOTE
    if result.cached:
        yield "from the cache", _NOTE


def _failure(failure: Failure) -> Iterator[tuple[str, Style | None]]:
    yield f"failed ({failure.kind}): {failure.message}", _FAILURE
    if failure.partial:
        yield "the part of the answer that arrived:", _NOTE
        yield failure.partial, None


def _answer(done: Completion) -> str:
    """The answer; JSON has one line for each value."""
    if len(done.text) > LONGEST_JSON:
        return done.text
    value = done.data
    if value is None and done.text.lstrip().startswith(("{", "[")):
        try:
            value = strict_json.loads(done.text, unique_keys=True)
        except ValueError:
            return done.text
    return json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, (dict, list)) else done.text


def _wrapped(line: str, width: int, console: Console) -> Iterator[str]:
    """The rows of a line; those after the first begin below the text of the first."""
    if cell_len(line) <= width:
        yield line
        return
    match = _LEAD.match(line)
    lead = match[0] if match and len(match[0]) * 2 < width else ""
    first, *others = Text(line[len(lead) :]).wrap(console, width - len(lead)) or [Text()]
    yield f"{lead}{first.plain}"
    yield from (f"{' ' * len(lead)}{row.plain.strip()}" for row in others)
