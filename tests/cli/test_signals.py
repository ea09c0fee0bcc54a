"""Signals to the real command: its records are complete, and each image has exactly one."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, records, start
from endpoint import Endpoint
from inside import finish

from vlmbatch.cli.console import Console
from vlmbatch.cli.signals import STOP_SIGNALS, Reports, SignalHandler
from vlmbatch.config.run import DisplayOptions

Photos = Callable[..., Path]


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", *more)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_requests_in_flight_finish(
    photos: Photos, endpoint: Endpoint, sent: signal.Signals, code: int
) -> None:
    """After the first signal no image starts, answers in flight are written, and exit is 128 + its number."""
    photos(60)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 5 else "held"
    running = start(*arguments(endpoint), stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) > 5)
    running.send_signal(sent)
    assert running.stderr is not None
    while "stopping" not in running.stderr.readline():
        pass
    endpoint.released = True
    _, told = running.communicate(timeout=240)
    assert running.returncode == code
    found = records(Path("o.jsonl").read_text())
    assert len(found) == len({r["id"] for r in found}) == len(endpoint.questions) < 60
    assert "Traceback" not in told
    finish(endpoint.url)
    assert len(Path("o.jsonl").read_text().splitlines()) == 60


def test_the_second_signal_ends_at_once(photos: Photos, endpoint: Endpoint) -> None:
    """A second Ctrl-C ends the run at once, even if the endpoint hangs."""
    photos(5)
    endpoint.script = ["ok", *["hang"] * 9]
    running = start(*arguments(endpoint), stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) >= 3 and bool(Path("o.jsonl").read_bytes()))
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    while "stopping" not in running.stderr.readline():
        pass
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=240)
    assert running.returncode == 130
    assert len(records(Path("o.jsonl").read_text())) == 1
    assert told.splitlines() == [
        "vlmbatch: ended at once: the records that were written are complete; "
        "the same command goes on where this run ended"
    ]


def test_a_signal_during_discovery_ends_at_once(photos: Photos, endpoint: Endpoint) -> None:
    """Ctrl-C before the start of the run ends it without waiting for the endpoint, and leaves no file."""
    photos(1)
    endpoint.routes = {"/api/tags": "hang", "/api/show": "hang"}
    running = start(*arguments(endpoint), stderr=subprocess.PIPE)
    endpoint.until(lambda: bool(endpoint.requests))
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=240)
    assert running.returncode == 130
    assert "Traceback" not in told
    assert not list(Path.cwd().glob("o.jsonl*"))


def test_nohup_is_respected(photos: Photos, endpoint: Endpoint) -> None:
    """A run with ignored SIGHUP goes on when the terminal hangs up."""
    photos(30)
    endpoint.delay = 0.02
    running = start(*arguments(endpoint), command=("nohup", *COMMAND), stderr=subprocess.DEVNULL)
    endpoint.until(lambda: len(endpoint.questions) >= 3)
    running.send_signal(signal.SIGHUP)
    assert running.wait(timeout=240) == 0
    assert len(records(Path("o.jsonl").read_text())) == 30


def test_a_signal_after_the_end_of_the_run_stops_nothing() -> None:
    """SIGTERM after the end of the run stops nothing, so that the reports are written."""
    stopped = list[str]()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    console = Console(DisplayOptions())
    handler = SignalHandler(lambda: stopped.append("stopped"), Reports(stopped.append), console, drain_s=9)
    try:
        handler.install()
        handler.finish()
        signal.raise_signal(signal.SIGTERM)
    finally:
        console.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert stopped == []
