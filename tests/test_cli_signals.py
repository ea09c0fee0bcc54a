"""Kills and signals at the real command: records are whole, and each image has exactly one."""

import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, records, run, start
from endpoint import Endpoint

Photos = Callable[..., Path]


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", *more)


@pytest.mark.slow
def test_twenty_kills_lose_and_double_nothing(photos: Photos, endpoint: Endpoint) -> None:
    """SIGKILL at 20 random moments and a last run: every image has exactly one whole record."""
    photos(150)
    endpoint.delay = 0.01
    moments = random.Random(7)
    for _ in range(20):
        asked = len(endpoint.questions) + moments.randrange(1, 8)
        running = start(*arguments(endpoint), stderr=subprocess.DEVNULL)
        endpoint.until(lambda asked=asked: len(endpoint.questions) >= asked)  # type: ignore[misc]
        running.kill()
        running.wait()
        if moments.random() < 0.3:  # as a power cut leaves it
            with Path("o.jsonl").open("ab") as output:
                output.write(b'{"v":1,"id":"photos/p0')
    assert run(*arguments(endpoint)).returncode == 0
    counted = Counter(record["id"] for record in records(Path("o.jsonl").read_text()))
    assert counted == {f"photos/p{n:04}.jpg": 1 for n in range(150)}


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_lets_what_is_in_flight_finish(
    photos: Photos, endpoint: Endpoint, sent: signal.Signals, code: int
) -> None:
    """The first signal begins nothing new, writes what was asked, and exits with 128 and its number."""
    photos(60)
    endpoint.delay = 0.05
    running = start(*arguments(endpoint), stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) >= 5)
    running.send_signal(sent)
    _, told = running.communicate(timeout=60)
    assert running.returncode == code
    found = records(Path("o.jsonl").read_text())
    assert len(found) == len({r["id"] for r in found}) == len(endpoint.questions) < 60
    assert "Traceback" not in told
    assert run(*arguments(endpoint)).returncode == 0
    assert len(Path("o.jsonl").read_text().splitlines()) == 60


def test_the_second_signal_ends_at_once(photos: Photos, endpoint: Endpoint) -> None:
    """With an endpoint that hangs the first Ctrl-C would wait; the second does not."""
    photos(5)
    endpoint.script = ["ok", *["hang"] * 9]
    running = start(*arguments(endpoint), stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) >= 3)
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    while "stopping" not in running.stderr.readline():
        pass
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert len(records(Path("o.jsonl").read_text())) == 1


def test_a_signal_while_the_endpoint_is_looked_for_ends_at_once(photos: Photos, endpoint: Endpoint) -> None:
    """Ctrl-C before the run has started ends it without waiting for the endpoint."""
    photos(1)
    endpoint.routes = {"/api/tags": "hang", "/api/show": "hang"}
    running = start(*arguments(endpoint), stderr=subprocess.PIPE)
    endpoint.until(lambda: bool(endpoint.requests))
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in told


def test_nohup_is_respected(photos: Photos, endpoint: Endpoint) -> None:
    """A run started with SIGHUP ignored goes on when the terminal hangs up."""
    photos(30)
    endpoint.delay = 0.02
    running = subprocess.Popen(["nohup", *COMMAND, *arguments(endpoint)], stderr=subprocess.DEVNULL)
    endpoint.until(lambda: len(endpoint.questions) >= 3)
    running.send_signal(signal.SIGHUP)
    assert running.wait(timeout=60) == 0
    assert len(records(Path("o.jsonl").read_text())) == 30


def test_a_link_to_an_output_has_the_same_lock(photos: Photos, endpoint: Endpoint) -> None:
    """Two runs that reach one file by two names do not both write to it."""
    photos(3)
    endpoint.script = ["slow:1"]
    first = start(*arguments(endpoint), stderr=subprocess.DEVNULL)
    endpoint.until(lambda: bool(endpoint.questions))
    Path("link.jsonl").symlink_to("o.jsonl")
    second = run(*arguments(endpoint)[:-1], "link.jsonl")
    assert second.returncode == 75
    assert first.wait(timeout=60) == 0


def test_a_second_run_on_the_same_output_exits_75(photos: Photos, endpoint: Endpoint) -> None:
    """Overlapping cron jobs: the second ends at once with 75, and the first is not disturbed."""
    photos(3)
    endpoint.script = ["slow:1"]
    first = start(*arguments(endpoint), stderr=subprocess.DEVNULL)
    endpoint.until(lambda: bool(endpoint.questions))
    second = run(*arguments(endpoint))
    assert second.returncode == 75
    assert "o.jsonl" in second.stderr
    assert first.wait(timeout=60) == 0
    assert len(records(Path("o.jsonl").read_text())) == 3


def test_a_limit_on_file_size_exits_5_with_whole_lines(photos: Photos, endpoint: Endpoint) -> None:
    """A disk that fills up is exit 5 at a whole line; the same command later does the rest."""
    photos(20)
    limited = subprocess.run(
        ["prlimit", "--fsize=4000", "bash", "-c", "trap '' XFSZ; exec \"$@\"", "-", *command_of(endpoint)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert limited.returncode == 5, limited.stderr
    assert "o.jsonl" in limited.stderr
    kept = records(Path("o.jsonl").read_text())
    assert 0 < len(kept) < 20
    assert run(*arguments(endpoint)).returncode == 0
    assert Counter(r["id"] for r in records(Path("o.jsonl").read_text())).most_common(1)[0][1] == 1
    assert len(Path("o.jsonl").read_text().splitlines()) == 20


def command_of(endpoint: Endpoint) -> list[str]:
    return [*COMMAND, *arguments(endpoint)]
