"""The messages of a run, as plain lines and as JSON."""

import errno
import io
import json
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from command import records, run, start
from endpoint import Endpoint
from run_events import ANSWERED, EVENTS, FAILED, HOSTILE, PAUSED, RETRY, STARTED
from written_results import failed

from vlmbatch.errors import UnavailableError
from vlmbatch.events import (
    BugFound,
    Event,
    ImageFinished,
    PreflightDelayed,
    RunFinished,
    RunStopping,
    TotalKnown,
)
from vlmbatch.observers import Bar, JsonLog, Lines
from vlmbatch.protocols import Observer
from vlmbatch.records import Summary

Photos = Callable[..., Path]


class WatchedStream(io.StringIO):
    """A stream on which a test can wait for text from another thread."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def write(self, text: str) -> int:
        with self._changed:
            written = super().write(text)
            self._changed.notify_all()
        return written

    def until(self, holds: Callable[[str], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self.getvalue()), timeout=240), self.getvalue()


def told(*events: Event, verbose: bool = False) -> list[str]:
    """The lines that Lines prints for these events."""
    stream = io.StringIO()
    with Lines(stream, verbose=verbose) as lines:
        for event in events:
            lines(event)
    return stream.getvalue().splitlines()


def test_the_reason_of_a_wait_is_in_each_progress_line() -> None:
    """While the endpoint is not found, each progress line has the last reason, in one harmless line."""
    stream = WatchedStream()
    with Lines(stream, every_s=0.001) as lines:
        lines(PreflightDelayed(endpoint="e", message=f"HTTP 500 {HOSTILE}"))
        stream.until(lambda text: text.count("looking for the endpoint: HTTP 500 xred") >= 2)
        lines(STARTED)
        stream.until(lambda text: "endpoint up" in text)
    assert "\x1b" not in stream.getvalue()


def test_each_reason_of_a_wait_is_shown_once_with_verbose() -> None:
    """With -v each new reason of a wait is printed at once, and the same reason is not printed again."""
    one, two = (PreflightDelayed(endpoint="e", message=message) for message in ("one", "two"))
    assert told(one, one, two, verbose=True) == [
        "looking for the endpoint: one",
        "looking for the endpoint: two",
    ]
    assert told(one, one, two) == []


def test_progress_lines_come_without_events() -> None:
    """Lines prints a progress line at each interval, even without any event."""
    stream = WatchedStream()
    with Lines(stream, every_s=0.001) as lines:
        stream.until(lambda text: text.count("looking for the endpoint\n") >= 2)
        for event in (STARTED, TotalKnown(total=8), ANSWERED, FAILED):
            lines(event)
        pattern = (
            r"2/8 done, 1 ok, 1 failed, [\d.]+ images/s, \d+ tokens/s, ETA \d+:\d\d, endpoint up, 4 at once\n"
        )
        stream.until(lambda text: len(re.findall(pattern, text)) >= 2)
        lines(PAUSED)
        stream.until(lambda text: "ETA -:--, endpoint down, waiting\n" in text)
    assert "vlmbatch-progress" not in {thread.name for thread in threading.enumerate()}


def test_a_stopping_run_says_how_long_it_waits() -> None:
    """A stopping run prints one line with the drain time, unless it stops because of an error."""
    (line,) = told(RunStopping(drain_s=30))
    waiting = "stopping: waiting up to 30.0 s for requests in flight"
    assert line == f"{waiting}; a second signal or Ctrl-C stops at once"
    assert told(RunStopping(drain_s=30, error=UnavailableError("away"))) == []


def test_start_notes_and_summary_are_a_line_each() -> None:
    """The start and each notice are one line, and the summary is one line with the failures below it."""
    lines = told(*(event for event in EVENTS if event is not RETRY))
    assert lines[0] == "using llava:7b (ollama, http://127.0.0.1:11434), 4 at once, records to o.jsonl"
    assert lines[1].startswith("a note xred")
    assert lines[2].startswith("a bug xred")
    assert lines[3] == "  --verbose shows the traceback"
    assert lines[4].endswith(": permission denied")
    assert lines[5:7] == [
        "paused: no connection; retrying for up to 15m 00s",
        "the endpoint is up again after 3.2 s",
    ]
    assert lines[7].startswith("finished: 1 answered, 1 failed, 3 done before in 2.0 s")
    assert re.fullmatch(r"  xred.*: bad_image: no", lines[8])
    assert len(lines) == 9


def test_a_run_without_records_says_so() -> None:
    """If no records are written, the first line says so, and the last does not refer to them."""
    started = replace(STARTED, output=None)
    ended = RunFinished(summary=Summary(total=6, failed=6, duration_s=1))
    failures = [ImageFinished(result=failed(f"{n}.jpg")) for n in range(6)]
    assert told(started)[0].endswith(", 4 at once, records are not kept")
    assert told(started, *failures, ended)[-1] == "  and 1 more"
    assert told(STARTED, *failures, ended)[-1] == "  and 1 more; their records have the reasons"


def test_a_terminal_gets_whole_words_and_whole_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message breaks between words on a terminal; with a longer path it stays one line, to be copied."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    for words, shown in (
        ("a message that is too long", "a message that is \ntoo long\n"),
        (f"no such file: {'long/' * 5}", f"no such file: {'long/' * 5}\n"),
    ):
        stream = io.StringIO()
        stream.isatty = lambda: True  # type: ignore[method-assign]
        Lines(stream).say(words)
        assert stream.getvalue() == shown


def test_verbose_prints_retries_and_failures_as_they_happen() -> None:
    """--verbose prints every retry and every failed image at once, and does not repeat them at the end."""
    ended = RunFinished(summary=Summary(total=1, failed=1, duration_s=1))
    assert told(RETRY, FAILED, ended)[0].startswith("finished")
    lines = told(RETRY, FAILED, ended, verbose=True)
    assert lines[0].endswith(": timeout: no answer within 300 s; retry in 1.5 s")
    assert lines[1].endswith(": bad_image: no")
    assert lines[2].startswith("finished")
    assert len(lines) == 3


def test_verbose_prints_the_traceback_of_a_bug() -> None:
    """With --verbose the lines of the traceback follow the message about a bug."""
    bug = BugFound(message="a bug", trace="Traceback:\n  a line\nKeyError: 1\n")
    assert told(bug, verbose=True) == ["a bug", "Traceback:", "  a line", "KeyError: 1"]


def test_many_failures_are_shown_in_part() -> None:
    """The summary shows five failures and the number of the other ones."""
    events = [ImageFinished(result=failed(f"p{n}.jpg")) for n in range(12)]
    lines = told(*events, RunFinished(summary=Summary(total=12, failed=12, duration_s=1)))
    assert lines[1] == "  p0.jpg: bad_image: no"
    assert lines[-1] == "  and 7 more; their records have the reasons"
    assert len(lines) == 7


def test_only_a_terminal_gets_escape_codes(photos: Photos, endpoint: Endpoint) -> None:
    """Neither the observer nor the real command writes an escape character to a stream without a terminal."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "\n".join(told(*EVENTS, verbose=True)))
    photos(2)
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url)
    assert done.returncode == 0
    assert "2 answered" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


@pytest.mark.parametrize("flags", [(), ("--log-json",)], ids=["lines", "JSON"])
def test_a_closed_standard_error_does_not_end_the_run(
    photos: Photos, endpoint: Endpoint, flags: tuple[str, ...]
) -> None:
    """The run goes on to its last record and exits 0 after the reader of standard error closes it."""
    photos(12)
    endpoint.delay = 0.05
    args = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", *flags)
    running = start(*args, stderr=subprocess.PIPE)
    assert running.stderr is not None
    running.stderr.readline()
    running.stderr.close()
    assert running.wait(timeout=240) == 0
    assert len(records(Path("o.jsonl").read_text())) == 12


@pytest.mark.parametrize("observer", [Lines, Bar, JsonLog])
@pytest.mark.parametrize("broken", ["write", "flush"])
def test_a_failing_stream_raises_no_error(
    observer: Callable[[io.StringIO], Observer], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An observer raises nothing if the disk is full, whether writing or flushing fails."""

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    stream = io.StringIO()
    monkeypatch.setattr(stream, broken, fail)
    observe = observer(stream)
    for event in EVENTS:
        observe(event)
    assert (stream.getvalue() == "") is (broken == "write")


def test_each_event_is_one_json_line() -> None:
    """--log-json writes every kind of event with its time, name and fields, but no answer and no steps."""
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    stream = io.StringIO()
    log = JsonLog(stream)
    for event in EVENTS:
        log(event)
    assert stream.getvalue().isascii()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "preflight_delayed",
        "run_started",
        "notice",
        "bug_found",
        "total_known",
        "images_skipped",
        "concurrency_changed",
        "queue_measured",
        "source_problem",
        "retry_scheduled",
        "endpoint_proven",
        "endpoint_paused",
        "endpoint_resumed",
        "image_finished",
        "image_finished",
        "run_stopping",
        "run_finished",
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}\+00:00", line["time"]) for line in lines)
    assert lines[1]["endpoint"]["url"] == "http://127.0.0.1:11434"
    answer, failure = lines[13], lines[14]
    assert {k: answer[k] for k in ("id", "status", "attempts")} == {
        "id": "good.jpg",
        "status": "ok",
        "attempts": 0,
    }
    assert (failure["id"], failure["status"], failure["kind"]) == (HOSTILE, "error", "bad_image")
    assert "the answer" not in stream.getvalue()
