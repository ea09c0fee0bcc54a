"""The bar as a terminal emulator shows it."""

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
from run_events import ANSWERED, EVENTS, FAILED, HOSTILE, PAUSED, STARTED
from terminal import Terminal
from written_results import answered

from vlmbatch.events import ImageFinished, PreflightDelayed, TotalKnown
from vlmbatch.observers import Bar
from vlmbatch.records import Completion, Usage

Photos = Callable[..., Path]
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|38|9[0-7])\b[0-9;]*m")


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def rows(bar: Bar, columns: int = 80) -> list[str]:
    """The rows that the bar draws in a terminal of this many columns."""
    console = Console(file=io.StringIO(), width=columns, height=25, force_terminal=True, no_color=True)
    with console.capture() as capture:
        console.print(bar)
    return re.sub(r"\x1b\[[0-9;]*m", "", capture.get()).splitlines()


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-c", "2", *more)


def test_the_bar_shows_why_the_endpoint_is_not_found() -> None:
    """Before the start the bar shows the last reason, cut to the terminal and without markup."""
    bar = Bar(Screen())
    assert rows(bar)[0].strip().endswith("looking for the endpoint")
    bar(PreflightDelayed(endpoint="e", message=f"[red]HTTP 500[/red] {HOSTILE} {'long ' * 40}"))
    row, empty = rows(bar)
    assert not empty
    assert "looking for the endpoint: [red]HTTP 500[/red] xred" in row
    assert len(row) <= 80
    assert "\x1b" not in row


@pytest.mark.parametrize("columns", [1, 2, 20, 80])
def test_the_height_never_changes(columns: int) -> None:
    """The bar is as high before the start as after it, so that no row of it stays behind."""
    bar = Bar(Screen())
    before = len(rows(bar, columns))
    bar(STARTED)
    bar(ANSWERED)
    assert len(rows(bar, columns)) == before == 2


def test_the_bar_shows_everything_in_80_columns(photos: Photos, endpoint: Endpoint) -> None:
    """During a run a terminal of 80 columns shows all figures and the state of the endpoint."""
    photos(40)
    (Path("photos") / "a-bad.jpg").write_text("no image")
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 10 else "held"
    with Terminal(*arguments(endpoint, "-o", "o.jsonl")) as terminal:
        terminal.until(
            r"━.* +\d+% +(?!41)\d+/41 images +ETA \d+:\d\d\n  [1-9]\d* ok  1 failed  [\d.]+ images/s  "
        )
        terminal.until(r"\n  \d+ ok  1 failed  [\d.]+ images/s  [1-9]\d* tokens/s  endpoint up, \d+ at once$")
        endpoint.down()
        terminal.until(r"paused: no connection", r"images +ETA -:--\n.* tokens/s  endpoint down, waiting$")
        endpoint.script = lambda request: "ok" if (request.chat or 0) < 20 else "held"
        endpoint.up()
        terminal.until(r"the endpoint is up again after", r"tokens/s  endpoint up, \d+ at once$")
        endpoint.released = True
        assert terminal.wait() == 3
        assert not any("━" in row or "tokens/s" in row for row in terminal.rows)
        assert "finished: 40 answered, 1 failed" in terminal.rows[-2]
        assert "a-bad.jpg: bad_image" in terminal.rows[-1]
    assert len(records(Path("o.jsonl").read_text())) == 41


def test_records_on_the_same_terminal_stay_whole(photos: Photos, endpoint: Endpoint) -> None:
    """Records on the same terminal replace the bar, so that no record is broken or overwritten."""
    photos(12)
    endpoint.delay = 0.15
    with Terminal(*arguments(endpoint), columns=1000, stdout=True) as terminal:
        assert terminal.wait() == 0
        found = [json.loads(row) for row in terminal.rows if row.startswith("{")]
        assert sorted(record["id"] for record in found) == [f"photos/p{n:04}.jpg" for n in range(12)]
        assert len(terminal.rows) == 14  # and the first and the last line


def test_a_closed_terminal_does_not_end_the_run(photos: Photos, endpoint: Endpoint) -> None:
    """The run goes on after its terminal is closed, and every image gets its record."""
    photos(10)
    endpoint.delay = 0.05
    with Terminal(*arguments(endpoint, "-o", "o.jsonl")) as terminal:
        terminal.until("endpoint up")
        terminal.close()
        assert terminal.wait() == 0
    assert len(records(Path("o.jsonl").read_text())) == 10


@pytest.mark.parametrize("columns", [200, 80, 60, 40, 20])
def test_no_row_is_wider_than_the_terminal(columns: int) -> None:
    """The rows of the bar are cut, never wrapped, on a narrow terminal."""
    bar = Bar(Screen())
    assert [len(row) <= columns for row in rows(bar, columns)] == [True, True]
    for event in (STARTED, TotalKnown(total=1000), ANSWERED, PAUSED):
        bar(event)
    drawn = rows(bar, columns)
    assert len(drawn) == 2
    assert all(len(row) <= min(columns, 90) for row in drawn)


def test_a_million_images_fit_into_80_columns() -> None:
    """The bar and all figures fit into 80 columns with large numbers."""
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
        r"  602333 ok  12000 failed  [\d.]+ images/s  \d+ tokens/s  endpoint down, waiting", second
    )


def test_an_unknown_total_is_left_out() -> None:
    """Until the images are counted, the bar shows only the number of finished ones."""
    bar = Bar(Screen())
    for event in (STARTED, ANSWERED, FAILED):
        bar(event)
    assert re.fullmatch(r". [━ ]+ +2 images +ETA -:--", rows(bar)[0].rstrip())


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color_is_respected(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar has colours unless NO_COLOR is set."""
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


def test_messages_above_the_bar_cannot_control_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No escape sequence from a name or message reaches the terminal, and the cursor stays visible."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    screen = Screen()
    with Bar(screen, verbose=True) as bar:
        for event in EVENTS:
            bar(event)
    assert "red" in screen.getvalue()
    assert not re.search(r"\x1b\[31mred|\x1b\]|\x1b\[2J|\x9b|\udcff|\x1b\[\?25l", screen.getvalue())
