"""Shows the answers of a run as text on standard output."""

import io
import sys
from typing import Protocol

from rich.console import Console as RichConsole
from rich.segment import Segment, Segments

from vlmbatch.cli.answer_text import answer_text
from vlmbatch.cli.console import Console
from vlmbatch.config import RunConfig
from vlmbatch.observers.lines import LineObserver
from vlmbatch.protocols import Observer
from vlmbatch.records import Result
from vlmbatch.streams import on_one_terminal
from vlmbatch.writers.stream import Stream

NOT_KEPT = "the records are not kept; to keep them, run the same command with -o answers.jsonl"


class Answers(Protocol):
    """Shows results, and waits while their reader is slow."""

    async def show(self, result: Result) -> None:
        """Show one result."""


def shows_text(config: RunConfig, *, stdin: bool, stdout: bool, term: str) -> bool:
    """Whether answers appear as text. `stdin` and `stdout` say which of the two is a terminal."""
    display = config.display
    if display.dry_run or display.format == "jsonl":
        return False
    if display.format == "text":
        return True
    is_plain = display.quiet or display.log_json or config.output.output != "-"
    return stdin and stdout and term != "dumb" and not is_plain


def open_answers(console: Console, observers: list[Observer]) -> Answers:
    """Show answers in one stream with the messages if both are on one terminal, else on standard output."""
    if not on_one_terminal():
        return StreamAnswers()
    consoles = [each.console for each in observers if isinstance(each, LineObserver)]
    return TerminalAnswers(console, *consoles)


class TerminalAnswers:
    """Shows answers above the bar, in the order of the messages."""

    def __init__(self, messages: Console, shared: RichConsole | None = None) -> None:
        """`shared` is the console of the bar or of the lines; None if the run has no such observer."""
        self._messages = messages
        self._console = shared or RichConsole(file=messages.stream, highlight=False)
        self._has_begun = False

    async def show(self, result: Result) -> None:
        """Show the result, and wait until the terminal has it."""
        await self._messages.wait_for_room()
        first = Segments([] if self._has_begun else [Segment.line()])
        self._has_begun = True
        answer = answer_text(result, self._console)
        self._console.print(first, answer, Segments([Segment.line()]), soft_wrap=True)
        await self._messages.wait()


class StreamAnswers:
    """Writes answers to standard output, with colours only if it is a terminal."""

    def __init__(self) -> None:
        is_terminal = sys.stdout.isatty()
        self._console = RichConsole(
            file=io.StringIO(),
            force_terminal=is_terminal,
            color_system="auto" if is_terminal else None,
            highlight=False,
        )
        self._stream = Stream()

    async def show(self, result: Result) -> None:
        """Write the result, and wait while the reader is slow.

        Raises:
            OutputClosed: the reader has closed the stream.
            OutputError: the disk behind the stream is full, or the write failed otherwise.
        """
        with self._console.capture() as capture:
            self._console.print(answer_text(result, self._console), soft_wrap=True)
        await self._stream.write(f"{capture.get()}\n".encode(sys.stdout.encoding or "utf-8", "replace"))
