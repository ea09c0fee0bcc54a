"""Notices become Python warnings, at a line of the user's code."""

import asyncio
import inspect
import json
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import run
from endpoint import Endpoint
from run_events import ANSWERED, EVENTS, PAUSED, STARTED
from waiting import until

from vlmbatch import VlmbatchWarning, open_session, run_batch
from vlmbatch.events import (
    BugFound,
    EndpointPaused,
    Event,
    Notice,
    PreflightDelayed,
    RunStarted,
    SourceProblem,
)
from vlmbatch.observers.notices import Notices

Photos = Callable[..., Path]
Heard = list[warnings.WarningMessage]
IMAGE = "photos/p0000.jpg"


def line_here() -> int:
    """The number of the line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def at(endpoint: Endpoint, **more: Any) -> dict[str, Any]:
    """The options for this endpoint."""
    return {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision", **more}


def plain_run(endpoint: Endpoint, **more: Any) -> int:
    """Run with `for`; returns the line to which warnings refer."""
    line = line_here() + 1
    for result in run_batch("photos", **at(endpoint, **more)):
        assert result.ok
    return line


def run_in_a_loop(endpoint: Endpoint, **more: Any) -> int:
    """Run with `async for`; returns the line to which warnings refer."""

    async def go() -> int:
        line = line_here() + 1
        async for result in run_batch("photos", **at(endpoint, **more)):
            assert result.ok
        return line

    return asyncio.run(go())


def plain_session(endpoint: Endpoint, **more: Any) -> int:
    """Ask in a session with `with`; returns the line to which warnings refer."""
    line = line_here() + 1
    with open_session(**at(endpoint, **more)) as session:
        question = session.question()
        assert session.answer(IMAGE, question).ok
        assert session.answer(IMAGE, question, reuse=False).ok
    return line


def session_in_a_loop(endpoint: Endpoint, **more: Any) -> int:
    """Ask in a session with `async with`; returns the line to which warnings refer."""

    async def go() -> int:
        line = line_here() + 1
        async with open_session(**at(endpoint, **more)) as session:
            question = session.question()
            assert (await session.answer(IMAGE, question)).ok
            assert (await session.answer(IMAGE, question, reuse=False)).ok
        return line

    return asyncio.run(go())


RUNS = (plain_run, run_in_a_loop)
ALL = (*RUNS, plain_session, session_in_a_loop)
Use = Callable[..., int]


@contextmanager
def filtered(action: Any, show: Callable[[], object] = lambda: None) -> Iterator[Heard]:
    """Inside, the filter has this action for VlmbatchWarning; each warning is kept, and `show` is called."""
    heard: Heard = []

    def keep(*shown: Any, **more: Any) -> None:
        heard.append(warnings.WarningMessage(*shown, **more))
        show()

    with warnings.catch_warnings():
        warnings.simplefilter(action, VlmbatchWarning)
        warnings.showwarning = keep
        yield heard


@contextmanager
def threads_end() -> Iterator[None]:
    """Wait at the end until all threads of this package that began inside the ``with`` have ended."""
    before = set(threading.enumerate())
    yield
    until(lambda: not [t for t in set(threading.enumerate()) - before if t.name.startswith("vlmbatch")])


@pytest.mark.parametrize("use", ALL)
def test_an_outage_is_warned_of_while_it_lasts(use: Use, photos: Photos, endpoint: Endpoint) -> None:
    """The warning comes before any answer: the endpoint is down until the warning is shown."""
    photos(4)
    endpoint.script = ["ok", "down"]
    with filtered("default", endpoint.up) as heard:
        line = use(endpoint, concurrency=1)
    (warning,) = heard
    assert str(warning.message).startswith("paused: ")
    assert str(warning.message).endswith("; retrying for up to 15m 00s")
    assert (warning.category, warning.filename, warning.lineno) == (VlmbatchWarning, __file__, line)


@pytest.mark.parametrize("use", ALL)
def test_notes_about_the_endpoint_are_warned_of_in_each_run(
    use: Use, photos: Photos, endpoint: Endpoint
) -> None:
    """The same note comes again in the next run at the same line, since a notebook drops the earlier one."""
    photos(1)
    endpoint.routes["/api/show"] = "500"
    with filtered("default") as heard:
        lines = {use(endpoint), use(endpoint)}
    one, other = heard
    assert str(one.message) == str(other.message)
    assert "/api/show" in str(one.message)
    assert {one.lineno, other.lineno} == lines


@pytest.mark.parametrize("use", ALL)
def test_a_filter_may_make_an_exception_of_it(use: Use, photos: Photos, endpoint: Endpoint) -> None:
    """With the filter "error" the exception ends the run or session, whose threads end, too."""
    photos(4)
    endpoint.script = ["ok", "down"]
    with threads_end(), filtered("error"), pytest.raises(VlmbatchWarning, match="paused: "):
        use(endpoint, concurrency=1)


@pytest.mark.parametrize("use", ALL)
def test_a_note_may_be_an_exception_too(use: Use, photos: Photos, endpoint: Endpoint) -> None:
    """With the filter "error" a note about the endpoint ends the run, or the session as it is opened."""
    photos(1)
    endpoint.routes["/api/show"] = "500"
    with threads_end(), filtered("error"), pytest.raises(VlmbatchWarning, match="/api/show"):
        use(endpoint)
    assert use in RUNS or not endpoint.questions  # a run has begun when its note is shown


@pytest.mark.parametrize("use", RUNS)
def test_records_are_whole_after_such_an_exception(use: Use, photos: Photos, endpoint: Endpoint) -> None:
    """The records before the exception are in the file, and the next run does the rest."""
    photos(6)
    endpoint.script = ["ok", "ok", "down"]
    with filtered("error"), pytest.raises(VlmbatchWarning):
        use(endpoint, concurrency=1, output="out.jsonl")
    assert len([json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]) in (1, 2)
    endpoint.up()
    use(endpoint, output="out.jsonl")
    assert len(Path("out.jsonl").read_text().splitlines()) == 6


def test_a_filter_may_ignore_them(photos: Photos, endpoint: Endpoint) -> None:
    """With the filter "ignore" nothing is shown."""
    photos(1)
    endpoint.routes["/api/show"] = "500"
    with filtered("ignore") as heard:
        plain_run(endpoint)
        plain_session(endpoint)
    assert not heard


def test_observers_do_not_replace_warnings(photos: Photos, endpoint: Endpoint) -> None:
    """A run with observers warns, too: most observers count or measure, and show no messages."""
    photos(1)
    endpoint.routes["/api/show"] = "500"
    events: list[Event] = []
    with filtered("default") as heard:
        plain_run(endpoint, observers=[events.append])
    assert len(heard) == 1
    assert any(isinstance(event, RunStarted) for event in events)


def test_a_script_shows_its_own_line(photos: Photos, endpoint: Endpoint) -> None:
    """Standard error has the script's file, the number and the text of the line, and the message."""
    photos(1)
    endpoint.routes["/api/show"] = "500"
    options = f'backend="ollama", model="tiny-vision", base_url="{endpoint.url}"'
    loop = f'for result in run_batch("photos", {options}):'
    Path("script.py").write_text(f"from vlmbatch import run_batch\n{loop}\n    print(result.ok)\n")
    done = run("script.py", command=(sys.executable,))
    assert done.stdout == "True\n"
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{Path('script.py').absolute()}:2: VlmbatchWarning: ")
    assert second == f"  {loop}"


def test_the_command_never_warns(photos: Photos, endpoint: Endpoint) -> None:
    """The command prints its notices itself, also where warnings are errors."""
    photos(1)
    endpoint.routes["/api/show"] = "500"
    args = ("-W", "error", "-m", "vlmbatch", "run", "photos", "-b", "ollama", "--base-url", endpoint.url)
    done = run(*args, "-m", "tiny-vision", command=(sys.executable,))
    assert done.returncode == 0, done.stderr
    assert "/api/show" in done.stderr
    assert "Warning" not in done.stderr


def test_these_events_have_notices() -> None:
    """VlmbatchWarning lists the events with notices, and no notice can control a terminal."""
    notices = Notices()
    long_wait = PreflightDelayed(endpoint="e", message="\x1b[31mloading", left_s=900)
    noted = RunStarted(
        endpoint=STARTED.endpoint, run=STARTED.run, concurrency=1, output=None, notes=("\x1b[2Ja note",)
    )
    found = {type(event): notices.of(event) for event in (*EVENTS, long_wait, noted)}
    listed = {RunStarted, PreflightDelayed, EndpointPaused, SourceProblem, Notice, BugFound}
    assert {kind for kind, told in found.items() if told} == listed
    assert all(kind.__name__ in str(VlmbatchWarning.__doc__) for kind in listed)
    lines = [line for told in found.values() for notice in told for line in notice.split("\n")]
    assert all(line.isprintable() for line in lines)
    assert found[RunStarted] == ["a note"]
    assert found[PreflightDelayed] == ["looking for the endpoint: loading; retrying for up to 15m 00s"]


def test_a_short_wait_at_the_start_is_no_notice() -> None:
    """A wait of seconds has no notice; a reason for a long wait has one notice."""
    notices = Notices()
    assert notices.of(PreflightDelayed(endpoint="e", message="no connection", left_s=5)) == []
    long = PreflightDelayed(endpoint="e", message="no connection", left_s=60)
    assert [len(notices.of(long)), len(notices.of(long))] == [1, 0]


def test_each_outage_has_a_notice_but_the_one_at_the_start() -> None:
    """An endpoint that is down at the start has one notice; a later outage of it has a new notice."""
    notices = Notices()
    url = ANSWERED.result.endpoint.url
    away = RunStarted(
        endpoint=STARTED.endpoint,
        run=STARTED.run,
        concurrency=1,
        output=None,
        others=("other",),
        away={url: PAUSED.message},
    )
    outage = EndpointPaused(message=PAUSED.message, give_up_s=900, endpoint=url, others_up=True)
    assert notices.of(away) == []
    assert notices.of(outage) == []
    assert notices.of(outage) == [f"{url} is down: no connection; the other endpoints go on"]
    assert notices.of(PAUSED) == ["paused, all endpoints are down: no connection; retrying for up to 15m 00s"]
