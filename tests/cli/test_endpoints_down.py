"""Messages about some of several endpoints that are down name them and say whether the run goes on."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint
from run_events import failed

from vlmbatch.events import EndpointPaused, EndpointResumed, Event, ImageFinished, RunStarted
from vlmbatch.observers import Lines
from vlmbatch.records import Endpoint as Found

Photos = Callable[..., Path]
DEAD = "http://127.0.0.1:9"
REASON = f"no connection to {DEAD}: Connection refused"
ADVICE = "start Ollama with: ollama serve, or set its URL with --base-url or OLLAMA_HOST"


@pytest.fixture
def urls(endpoint: Endpoint) -> Iterator[tuple[str, str, str]]:
    """The URLs of three endpoints, of which the second is dead."""
    with Endpoint() as other:
        yield endpoint.url, DEAD, other.url


def test_a_dead_endpoint_of_three_is_told_once(photos: Photos, urls: tuple[str, ...]) -> None:
    """A dead endpoint of a file of URLs is named, also with -q; the others go on, and its row says so."""
    photos(4)
    Path("endpoints.txt").write_text("\n".join(urls))
    asked = ("run", "photos", "-b", "ollama", "-m", "tiny-vision", "--base-url", "endpoints.txt")
    done = run(*asked, "-o", "a.jsonl")
    lines = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[1] == f"{DEAD} is down at the start: {REASON}; {ADVICE}; the other endpoints go on"
    assert [line for line in lines if DEAD in line] == [
        *lines[:2],
        f"  {DEAD}: was down during the whole run",
    ]
    still = run(*asked, "-o", "b.jsonl", "-q", "--summary", "s.json")
    never = f"vlmbatch: {DEAD} was down during the whole run; start it, or leave it out\n"
    assert (still.returncode, still.stderr) == (0, never)
    rows = {row["url"]: row["answered"] for row in json.loads(Path("s.json").read_text())["endpoints"]}
    assert rows[DEAD] == 0
    assert sum(rows.values()) == 4


def test_doctor_names_the_dead_endpoint_and_goes_on(urls: tuple[str, ...]) -> None:
    """Doctor exits with 4, and its next command has only the endpoints that are up."""
    flags = [word for url in urls for word in ("--base-url", url)]
    done = run("doctor", "-b", "ollama", "-m", "tiny-vision", *flags, "--give-up-after", "0")
    assert done.returncode == 4
    assert f"wrong    reachable: {REASON}\n         -> {ADVICE}\n" in done.stdout
    assert f"--base-url {urls[0]} --base-url {urls[2]} --output" in done.stdout.splitlines()[-1]


def test_all_endpoints_down_is_one_message(photos: Photos) -> None:
    """If no endpoint is up, one message names each with its reason, and has the advice once."""
    photos(1)
    other = "http://127.0.0.1:1"
    asked = ("run", "photos", "-b", "ollama", "-m", "m", "--give-up-after", "0")
    done = run(*asked, "--base-url", DEAD, "--base-url", other)
    assert done.returncode == 4
    assert done.stderr == (
        f"vlmbatch: none of the 2 endpoints is up: {REASON}, "
        f"no connection to {other}: Connection refused; {ADVICE}\n"
    )


def _told(*events: Event) -> list[str]:
    stream = io.StringIO()
    lines = Lines(stream)
    for event in events:
        lines(event)
    return stream.getvalue().splitlines()


def test_each_change_of_three_endpoints_is_told() -> None:
    """The outage that the start told is not told again; later ones, the last one and each return are."""
    start = RunStarted(
        endpoint=Found(backend="b", url="A", model="m"),
        run="r",
        concurrency=1,
        output="-",
        others=("B", "C"),
        away={"B": "x"},
        notes=("B is down at the start: x; the other endpoints go on",),
    )
    down_b = EndpointPaused(message="x", give_up_s=9, endpoint="B", others_up=True)
    up_b = EndpointResumed(paused_s=3.2, endpoint="B", others_up=True)
    down_c = EndpointPaused(message="y; start it", give_up_s=9, endpoint="C")
    up_c = EndpointResumed(paused_s=1.0, endpoint="C")
    assert _told(start, down_b, up_b, down_b, down_c, up_c)[1:] == [
        "B is down at the start: x; the other endpoints go on",
        "B is up again after 3.2 s",
        "B is down: x; the other endpoints go on",
        "paused, all endpoints are down: y; start it; retrying for up to 9.0 s",
        "C is up again after 1.0 s",
    ]


def test_a_later_outage_is_told_although_the_start_told_one() -> None:
    """An endpoint that only was slow at the start, or has answered since, is named when it goes down."""
    start = RunStarted(
        endpoint=Found(backend="b", url="A", model="m"),
        run="r",
        concurrency=1,
        output="-",
        others=("B",),
        away={"B": "slow"},
    )
    down = EndpointPaused(message="dead", give_up_s=9, endpoint="B", others_up=True)
    again = replace(down, message="slow")
    answered = ImageFinished(result=replace(failed("a.jpg"), endpoint=Found(backend="b", url="B", model="m")))
    assert _told(start, down)[1:] == ["B is down: dead; the other endpoints go on"]
    assert _told(start, again)[1:] == []
    assert _told(start, answered, again)[1:] == ["B is down: slow; the other endpoints go on"]
