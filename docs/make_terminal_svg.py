"""Draws docs/terminal.svg: the real progress bar, fed with the events of an imagined run at 60 percent."""

import io
import re
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from vlmbatch.events import (
    EndpointPaused,
    EndpointResumed,
    Event,
    ImageFinished,
    RunStarted,
    TotalKnown,
)
from vlmbatch.observers import Bar
from vlmbatch.records import Completion, Endpoint, Failure, Result, Usage

PICTURE = Path(__file__).with_name("terminal.svg")
COMMAND = 'vlmbatch run ./photos --prompt "Describe this image" -o captions.jsonl'
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


def imagined_run(bar: Bar, clock: Clock) -> None:
    """Send the bar the events of 724 of 1,200 images, with an outage in between."""
    where = "http://127.0.0.1:11434"
    endpoint = Endpoint(backend="ollama", url=where, model="llava:7b")

    def at(seconds: float, *events: Event) -> None:
        clock.now = seconds
        for event in events:
            bar(event)

    started = RunStarted(endpoint=endpoint, run="9f3c2a1b7d04", concurrency=4, output="captions.jsonl")
    at(0, started, TotalKnown(total=1200))
    paused = EndpointPaused(message="the endpoint is busy (HTTP 429 without a text)", give_up_s=900)
    for number in range(724):
        if number == 200:
            at(48, paused)
            at(54.3, EndpointResumed(paused_s=6.3))
        outage_s = 0.0 if number < 200 else 6.3
        at(outage_s + number * 0.238, ImageFinished(result=result(endpoint, number)))


def result(endpoint: Endpoint, number: int) -> Result:
    """The result of one image; every 240th cannot be decoded."""
    usage = Usage(input_tokens=612, output_tokens=41 + number % 17)
    answer = Completion(text="...", model=endpoint.model, finish_reason="stop", usage=usage)
    broken = number % 240 == 239
    return Result(
        id=f"photos/{number:04}.jpg",
        endpoint=endpoint,
        run="9f3c2a1b7d04",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        duration_s=0.95,
        completion=None if broken else answer,
        failure=Failure(kind="bad_image", message="the file is cut short") if broken else None,
    )


def picture() -> str:
    """The SVG. It fetches nothing when it is displayed."""
    clock, notes = Clock(), io.StringIO()
    bar = Bar(notes, clock=clock)
    imagined_run(bar, clock)
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
    console.print(Text(notes.getvalue().rstrip()))
    console.print(bar)
    svg = console.export_svg(title="vlmbatch", theme=THEME, code_format=FORMAT, unique_id="vlmbatch")
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
