"""The bar in a terminal: what a person sees of it, byte by byte through a terminal emulator."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command import records
from endpoint import Endpoint
from rich.console import Console
from run_events import ANSWERED, EVENTS, FAILED, PAUSED, STARTED
from terminal import Terminal
from written_results import answered

from vlmbatch.events import ImageFinished, TotalKnown
from vlmbatch.observers import Bar
from vlmbatch.records import Completion, Usage

Photos = Callable[..., Path]
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|38|9[0-7])\b[0-9;]*m")


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def rows(bar: Bar, columns: int = 80) -> list[str]:
    """What the bar draws in a terminal of so many columns."""
    console = Console(file=io.StringIO(), width=columns, height=25, force_terminal=True, no_color=True)
    with console.capture() as capture:
        console.print(bar)
    return re.sub(r"\x1b\[[0-9;]*m", "", capture.get()).splitlines()


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-c", "2", *more)


def test_the_bar_shows_everything_in_80_columns(photos: Photos, endpoint: Endpoint) -> None:
    """While the real command runs, a terminal of 80 columns shows all figures and the endpoint's state."""
    photos(40)
    (Path("photos") / "a-bad.jpg").write_text("no image")
    endpoint.delay = 0.1
    with Terminal(*arguments(endpoint, "-o", "o.jsonl")) as terminal:
        terminal.until(
            r"━.* +\d+% +(?!41)\d+/41 images +ETA \d+:\d\d\n  [1-9]\d* ok  1 failed  [\d.]+ images/s  "
        )
        terminal.until(r"\n  \d+ ok  1 failed  [\d.]+ images/s  [1-9]\d* tokens/s  endpoint up, \d+ at once$")
        endpoint.down()
        terminal.until(r"paused: no connection", r"images +ETA -:--\n.* tokens/s  endpoint away, waiting$")
        endpoint.up()
        terminal.until(r"the endpoint is back after", r"tokens/s  endpoint up, \d+ at once$")
        assert terminal.wait() == 3
        assert not any("━" in row or "tokens/s" in row for row in terminal.rows)
        assert "finished: 40 answered, 1 failed" in terminal.rows[-2]
        assert "a-bad.jpg: bad_image" in terminal.rows[-1]
    assert len(records(Path("o.jsonl").read_text())) == 41


def test_records_on_the_same_terminal_stay_whole(photos: Photos, endpoint: Endpoint) -> None:
    """Where records come out on the terminal, the bar makes room: no record is torn or overwritten."""
    photos(12)
    endpoint.delay = 0.15
    with Terminal(*arguments(endpoint), columns=1000, stdout=True) as terminal:
        assert terminal.wait() == 0
        found = [json.loads(row) for row in terminal.rows if row.startswith("{")]
        assert sorted(record["id"] for record in found) == [f"photos/p{n:04}.jpg" for n in range(12)]
        assert len(terminal.rows) == 14  # and the first and the last line


def test_a_terminal_that_goes_away_does_not_end_the_run(photos: Photos, endpoint: Endpoint) -> None:
    """Under nohup, when the terminal is closed the run goes on and every image gets its record."""
    photos(10)
    endpoint.delay = 0.05
    with Terminal(*arguments(endpoint, "-o", "o.jsonl")) as terminal:
        terminal.until("endpoint up")
        terminal.close()
        assert terminal.wait() == 0
    assert len(records(Path("o.jsonl").read_text())) == 10


@pytest.mark.parametrize("columns", [200, 80, 60, 40, 20])
def test_no_row_is_wider_than_the_terminal(columns: int) -> None:
    """On a narrow terminal rows end early and are never wrapped, or the terminal would be littered."""
    bar = Bar(Screen())
    assert [len(row) <= columns for row in rows(bar, columns)] == [True]
    for event in (STARTED, TotalKnown(total=1000), ANSWERED, PAUSED):
        bar(event)
    drawn = rows(bar, columns)
    assert len(drawn) == 2
    assert all(len(row) <= min(columns, 90) for row in drawn)


def test_a_million_images_fit_into_80_columns() -> None:
    """With large numbers all is still there, and the bar too."""
    bar = Bar(Screen())
    usage = Usage(output_tokens=10)
    answer = Completion(text="x", model="m", finish_reason="stop", usage=usage)
    for event in (
        STARTED,
        TotalKnown(total=1_000_000),
        ImageFinished(result=replace(answered("a"), completion=answer)),
    ):
        bar(event)
    bar.meter.ok, bar.meter.failed = 602_333, 12_000
    bar(PAUSED)
    first, second = rows(bar)
    assert re.fullmatch(r". ━{10,} +61% +614333/1000000 images +ETA -:--", first.rstrip())
    assert re.fullmatch(
        r"  602333 ok  12000 failed  [\d.]+ images/s  \d+ tokens/s  endpoint away, waiting", second
    )


def test_a_total_that_is_not_known_yet_is_left_out() -> None:
    """While the folders are still being counted, the bar says how many are done."""
    bar = Bar(Screen())
    for event in (STARTED, ANSWERED, FAILED):
        bar(event)
    assert re.fullmatch(r". [━ ]+ +2 images +ETA -:--", rows(bar)[0].rstrip())


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color_is_respected(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set the bar is drawn without colours; else with them."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    if not no_color:
        monkeypatch.delenv("NO_COLOR")
    screen = Screen()
    with Bar(screen) as bar:
        for event in EVENTS[:-1]:
            bar(event)
    assert "endpoint up" in screen.getvalue()
    assert bool(COLOUR.search(screen.getvalue())) is not no_color


def test_notes_above_the_bar_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape sequences in names and messages do not reach the terminal, and the cursor stays visible."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    screen = Screen()
    with Bar(screen, verbose=True) as bar:
        for event in EVENTS:
            bar(event)
    assert "red" in screen.getvalue()
    assert not re.search(r"\x1b\[31mred|\x1b\]|\x1b\[2J|\x9b|\udcff|\x1b\[\?25l", screen.getvalue())
