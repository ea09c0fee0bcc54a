"""Answers as text on standard output: who gets them, in which order, and what is said at the end."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, environment, records, run
from endpoint import Endpoint
from terminal import Terminal

from vlmbatch.cli.answers import NOT_KEPT, shows_text
from vlmbatch.config import RunConfig

Photos = Callable[..., Path]
COLOUR = re.compile(rb"\x1b\[(?:[0-9]+;)*(?:3[0-8]|9[0-7])(?:;[0-9]+)*m")
LONG = " ".join(f"word{n}" for n in range(40))
KEPT = "using tiny-vision .*, records are not kept"
needs_script = pytest.mark.skipif(
    not shutil.which("script") or sys.platform != "linux", reason="script of util-linux is not installed"
)
PERSON = {"stdin": True, "stdout": True, "term": "xterm-256color"}


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-c", "1", *more)


def on_terminal(endpoint: Endpoint, *more: str, columns: int = 80, **variables: str) -> Terminal:
    """The command as a person starts it: all three streams are one terminal."""
    return Terminal(*arguments(endpoint, *more), columns=columns, stdin=True, stdout=True, **variables)


def words(terminal: Terminal) -> str:
    """The words on the screen, with one space between them."""
    return " ".join(" ".join(terminal.rows).split())


@pytest.mark.parametrize(
    ("facts", "options", "expected"),
    [
        ({}, {}, True),
        ({}, {"output": "-"}, True),
        ({}, {"verbose": True}, True),
        ({"stdin": False}, {}, False),
        ({"stdout": False}, {}, False),
        ({"term": "dumb"}, {}, False),
        ({"term": ""}, {}, True),
        ({}, {"quiet": True}, False),
        ({}, {"log_json": True}, False),
        ({}, {"output": "o.jsonl"}, False),
        ({}, {"format": "jsonl"}, False),
        ({}, {"dry_run": True, "format": "text"}, False),
        ({"stdin": False, "stdout": False, "term": "dumb"}, {"format": "text"}, True),
        ({}, {"format": "text", "quiet": True, "log_json": True, "output": "o.jsonl"}, True),
    ],
)
def test_auto_is_text_for_a_person_at_a_terminal(
    facts: dict[str, object], options: dict[str, object], expected: bool
) -> None:
    """Auto chooses text if a person starts the command and reads its output; text and jsonl always hold."""
    assert shows_text(RunConfig.of("photos", **options), **{**PERSON, **facts}) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_person_reads_text(photos: Photos, endpoint: Endpoint, columns: int) -> None:
    """On a terminal each answer is text below its path, then come the summary and how to keep records."""
    photos(2)
    endpoint.answer = lambda request: LONG
    with on_terminal(endpoint, columns=columns) as terminal:
        assert terminal.wait() == 0
        shown, rows = words(terminal), terminal.rows
    assert re.match(
        rf"{KEPT} photos/p000(.)\.jpg {LONG} photos/p000(?!\1).\.jpg {LONG} "
        rf"finished: 2 answered in .* {NOT_KEPT}$",
        shown,
    ), rows
    assert max(map(len, rows)) <= columns
    assert not any("\u2501" in row for row in rows), "the bar is gone at the end"


def test_the_bar_stays_below_the_answers(photos: Photos, endpoint: Endpoint) -> None:
    """During the run the bar is below the answers, and an outage is told between them."""
    photos(6)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 3 else "held"
    with on_terminal(endpoint) as terminal:
        terminal.until(r"p000\d\.jpg\n  \S.*\n(.*\n)*. \u2501.* images +ETA .*\n  \d ok .* endpoint up, .*$")
        endpoint.down()
        terminal.until(r"\npaused: no connection", r"endpoint down, waiting$")
        endpoint.script = ["ok"] * 9
        endpoint.up()
        endpoint.released = True
        assert terminal.wait() == 0
        shown = words(terminal)
    assert [shown.count(f"photos/p{n:04}.jpg") for n in range(6)] == [1] * 6
    assert re.search(r"\.jpg .*paused: .*is up again after.*\.jpg .*finished: 6 answered", shown)


def test_a_failure_is_shown_once(photos: Photos, endpoint: Endpoint) -> None:
    """On the terminal a failure appears in the place of its answer, and not a second time in the summary."""
    photos(1)
    (Path("photos") / "a-bad.jpg").write_text("no image")
    with on_terminal(endpoint, "--verbose") as terminal:
        assert terminal.wait() == 3
        assert words(terminal).count("bad_image") == 1
        at = terminal.rows.index("photos/a-bad.jpg")
        assert terminal.rows[at + 1].startswith("  failed (bad_image): not an image")
    done = run(*arguments(endpoint, "--format", "text"))
    assert "photos/a-bad.jpg\n  failed (bad_image): " in done.stdout
    assert "\n  photos/a-bad.jpg: bad_image: " in done.stderr


@pytest.mark.parametrize("no_color", [True, False])
def test_no_color_is_respected(photos: Photos, endpoint: Endpoint, no_color: bool) -> None:
    """With NO_COLOR the terminal gets text without any colour; the path is still bold."""
    photos(1)
    with on_terminal(endpoint, **({"NO_COLOR": "1"} if no_color else {})) as terminal:
        assert terminal.wait() == 0
        assert bool(COLOUR.search(terminal.raw)) is not no_color
        assert re.search(rb"\x1b\[1(;36)?mphotos/p0000", terminal.raw)


def test_a_hostile_name_and_answer_do_nothing(photos: Photos, endpoint: Endpoint) -> None:
    """Control sequences in a file name and in an answer never reach the terminal."""
    photos(1)
    (Path("photos") / "p0000.jpg").rename(Path("photos") / "\x1b]0;title\x07\x1b[2J\u202e.jpg")
    endpoint.answer = lambda request: "\x1b[2J\x1b[31mred\x1b]52;c;cm0=\x07 \x9b1mC1\nfinished: all is well"
    with on_terminal(endpoint) as terminal:
        assert terminal.wait() == 0
        assert not re.search(rb"\x1b\]|\x1b\[2J\x1b\[31m|\x1b\[31mred|\xc2\x9b|\xe2\x80\xae", terminal.raw)
        assert "  finished: all is well" in terminal.rows


def test_records_and_text(photos: Photos, endpoint: Endpoint) -> None:
    """With -o and --format text, the file has the records and the terminal the answers."""
    photos(2)
    with on_terminal(endpoint, "-o", "o.jsonl", "--format", "text") as terminal:
        assert terminal.wait() == 0
        shown = words(terminal)
    assert "records to o.jsonl" in shown
    assert NOT_KEPT not in shown
    assert sorted(record["id"] for record in records(Path("o.jsonl").read_text())) == [
        path for path in ("photos/p0000.jpg", "photos/p0001.jpg") if path in shown
    ]


@pytest.mark.parametrize("output", [(), ("-o", "o.jsonl")])
@pytest.mark.parametrize("chosen", ["jsonl", "auto"])
def test_a_program_reads_records(
    photos: Photos, endpoint: Endpoint, chosen: str, output: tuple[str, ...]
) -> None:
    """A pipe gets one record a line, and nothing if the records go to a file."""
    photos(2)
    done = run(*arguments(endpoint, *output, "--format", chosen))
    assert done.returncode == 0
    found = records(done.stdout)
    assert sorted(record["id"] for record in found) == (
        [] if output else ["photos/p0000.jpg", "photos/p0001.jpg"]
    )
    assert NOT_KEPT not in done.stderr


def test_a_file_gets_whole_lines(photos: Photos, endpoint: Endpoint) -> None:
    """Text in a pipe or file is not wrapped and has no colours, whatever the variables of the shell say."""
    photos(1)
    endpoint.answer = lambda request: LONG
    done = run(*arguments(endpoint, "--format", "text"), FORCE_COLOR="1", COLUMNS="40", TERM="xterm")
    assert done.stdout == f"photos/p0000.jpg\n  {LONG}\n\n"


@pytest.mark.parametrize("columns", ["0", "00", "1000000", "\u00b2", "abc"])
def test_odd_columns_have_no_effect(photos: Photos, endpoint: Endpoint, columns: str) -> None:
    """A number of columns that no terminal has loses no text; the terminal itself tells its width."""
    photos(1)
    with on_terminal(endpoint, COLUMNS=columns, LINES=columns) as terminal:
        assert terminal.wait() == 0
        assert len(terminal.raw) < 20_000
        assert "photos/p0000.jpg" in terminal.rows
        assert "records are not kept" in words(terminal)


def test_a_dumb_terminal_gets_records_or_plain_text(photos: Photos, endpoint: Endpoint) -> None:
    """With TERM=dumb records are the default, and --format text prints text without any code or bar."""
    photos(1)
    with on_terminal(endpoint, TERM="dumb") as terminal:
        assert terminal.wait() == 0
        assert any(row.startswith('{"v":1,') for row in terminal.rows)
    with on_terminal(endpoint, "--format", "text", TERM="dumb") as terminal:
        assert terminal.wait() == 0
        assert b"\x1b" not in terminal.raw
        assert "photos/p0000.jpg" in terminal.rows


KEEP = "add -o answers.jsonl to keep records"


def test_a_stopped_run_says_how_to_keep_records(photos: Photos, endpoint: Endpoint) -> None:
    """After Ctrl-C the answers in flight are shown, and the last line says how to keep records."""
    photos(9)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 2 else "held"
    with on_terminal(endpoint) as terminal:
        endpoint.until(lambda: len(endpoint.questions) > 2)
        terminal.interrupt()
        terminal.until("stopping: waiting")
        endpoint.released = True
        assert terminal.wait() == 130
        shown = words(terminal)
    assert shown.count(".jpg ") == len(endpoint.questions)
    assert re.search(rf"stopped: {len(endpoint.questions)} answered.* left; the same .*{KEEP}", shown)
    assert NOT_KEPT not in shown


def test_a_run_that_fails_says_how_to_keep_records(photos: Photos, endpoint: Endpoint) -> None:
    """If an error ends the run after answers were shown, the user reads both the error and the way."""
    photos(4)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 2 else "401"
    done = run(*arguments(endpoint, "--format", "text", "--give-up-after", "0"))
    assert done.returncode == 4
    assert done.stdout.count(".jpg\n  ") == 2
    assert re.search(rf"(?s)stopped: 2 answered.*vlmbatch: .*401.* left; the same .*{KEEP}", done.stderr)


def test_no_answer_no_advice(photos: Photos, endpoint: Endpoint) -> None:
    """Nothing is said about records if none was made, and with --quiet nothing at all."""
    photos(1)
    assert run(*arguments(endpoint, "--format", "text", "--include", "*.gif")).stderr.count(NOT_KEPT) == 0
    assert run(*arguments(endpoint, "--format", "text", "--quiet")).stderr == ""


@pytest.mark.parametrize(("output", "code"), [("", 0), ("-o o.jsonl", 6)])
def test_a_closed_pipe_ends_the_run(photos: Photos, endpoint: Endpoint, output: str, code: int) -> None:
    """When the reader closes the pipe the run ends: with 0, or with 6 if the file has not all records."""
    photos(40)
    command = shlex.join([*COMMAND, *arguments(endpoint, "--format", "text", *output.split())])
    endpoint.answer = lambda request: " ".join(map(str, range(30_000)))  # more than a pipe holds
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout.count("\n")) == (code, 1), done.stderr
    assert "stopped: " in done.stderr
    assert "Traceback" not in done.stderr


@needs_script
def test_script_shows_text(photos: Photos, endpoint: Endpoint) -> None:
    """In a session that script(1) records, which has a terminal of its own, answers are text."""
    photos(1)
    done = in_script(shlex.join([*COMMAND, *arguments(endpoint)]))
    assert re.search(r"photos/p0000\.jpg\x1b\[0m\n  \w", done)
    assert "records are not kept" in done


@needs_script
def test_a_reader_on_the_same_terminal_sees_no_bar(photos: Photos, endpoint: Endpoint) -> None:
    """If a pager or filter on the same terminal reads the answers, no bar is drawn over its output."""
    photos(1)
    command = shlex.join([*COMMAND, *arguments(endpoint, "-o", "o.jsonl", "--format", "text")])
    done = in_script(f"{command} | cat")
    assert "photos/p0000.jpg\n  " in done
    assert "finished: 1 answered" in done
    assert "\x1b" not in done
    assert "\u2501" not in done


def in_script(line: str) -> str:
    """What a terminal shows when script(1) runs the shell line in it."""
    done = subprocess.run(
        ["script", "-qec", line, "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(TERM="xterm-256color"),
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
