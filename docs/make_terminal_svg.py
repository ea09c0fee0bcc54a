"""Draws docs/terminal.svg: the answers and the bar of a run of the demonstration model over samples/.

The real classes draw them; the answers are those of a real run (samples/README.md).
"""

import io
import re
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from vlmbatch.backends.llama_cpp.backend import DEMO_NOTE
from vlmbatch.cli.answer_text import answer_text
from vlmbatch.events import ImageFinished, RunStarted, TotalKnown
from vlmbatch.observers import Bar
from vlmbatch.records import Completion, Endpoint, Result, Usage

PICTURE = Path(__file__).with_name("terminal.svg")
COMMAND = "vlmbatch run samples"
MODEL = Endpoint(backend="llama-cpp", url="in-process", model="pixie-demo", notes=(DEMO_NOTE,))
ANSWERS = (
    (
        "hard-animated.gif",
        "One shape on a cyan background: a large pink circle at the center.",
        "the file has 4 pages or frames; only the first was read",
    ),
    ("hard-16-bit.png", "One shape on a gray background: a large white star at the center."),
    (
        "hard-exif-rotated.jpg",
        "Two shapes on a yellow background: a small red triangle at the top left and a large blue star "
        "at the bottom.",
    ),
    (
        "hard-cmyk.jpg",
        "Two shapes on a white background: a large blue circle at the top left and a small red square "
        "at the bottom right.",
    ),
)
"""The name, the answer and the warnings of each sample, as in a real run."""
COLUMNS = 88
THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [
        (72, 79, 88),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (177, 186, 196),
    ],
)
"""Background, text, and black, red, green, yellow, blue, magenta, cyan, white."""

# rich's own template links a web font; this one fetches nothing, and stays readable
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" role="img" aria-label="vlmbatch in a terminal"
    xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Clock:
    """The clock of the imagined run, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The current time."""
        return self.now


def shown_run(bar: Bar, clock: Clock) -> list[Result]:
    """Send the bar the events of the first images of samples/; returns their results."""
    started = RunStarted(endpoint=MODEL, run="9f3c2a1b7d04", concurrency=4, adapts=True, output=None)
    bar(started)
    bar(TotalKnown(total=12))
    results = [result(*answer) for answer in ANSWERS]
    for each in results:
        clock.now += 0.08
        bar(ImageFinished(result=each))
    return results


def result(name: str, text: str, *warnings: str) -> Result:
    """The result of one sample."""
    usage = Usage(input_tokens=80, output_tokens=len(text.split()) + 3)
    return Result(
        id=f"samples/{name}",
        endpoint=MODEL,
        run="9f3c2a1b7d04",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        duration_s=0.2,
        completion=Completion(text=text, model=MODEL.model, finish_reason="stop", usage=usage),
        warnings=warnings,
    )


def picture() -> str:
    """The SVG. It fetches nothing when it is displayed."""
    clock, notes = Clock(), io.StringIO()
    bar = Bar(notes, clock=clock)
    results = shown_run(bar, clock)
    console = Console(
        record=True,
        width=COLUMNS,
        height=25,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
        highlight=False,
        get_time=lambda: 0.0,  # the spinner stands still
    )
    console.print(Text.assemble(("$ ", "bold green"), (COMMAND, "bold")))
    console.print(Text(notes.getvalue()))
    for each in results:
        console.print(answer_text(each, console))
        console.print()
    console.print(bar)
    svg = console.export_svg(title="vlmbatch", theme=THEME, code_format=FORMAT, unique_id="vlmbatch")
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
