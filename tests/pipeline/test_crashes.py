"""An engine that crashes: its neighbours are answered, and the image that brings it down fails alone."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from running import ran

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import UnavailableError
from vlmbatch.imaging.prepare import prepare

Photos = Callable[..., Path]


@pytest.fixture(params=["ollama", "vllm"])
def asked(request: pytest.FixtureRequest, endpoint: Endpoint) -> dict[str, Any]:
    """Options that ask the endpoint over one of the wires."""
    return {"backend": request.param, "base_url": endpoint.url, "model": "tiny-vision"}


def sent_as(photo: Path) -> str:
    """The SHA-256 of what is sent for this photo."""
    picture = prepare(photo.read_bytes(), ImageOptions())
    return hashlib.sha256(base64.b64decode(picture.data)).hexdigest()


@pytest.mark.parametrize(("how", "alone"), [("crash_neighbours:0.2", 4), ("crash_neighbours:0.2:500", 2)])
@pytest.mark.parametrize("concurrency", [8, 1])
async def test_v6_one_poison_image_fails_alone(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], how: str, alone: int, concurrency: int
) -> None:
    """A picture that kills the engine for all in flight fails, and nothing else does.

    An engine that dies without a word is asked more often: it may have been restarted.
    """
    poison = photos(24) / "p0003.jpg"
    endpoint.script = {sent_as(poison): how}
    done = await ran(**asked, concurrency=concurrency)
    assert done.error is None
    assert len(done.ids) == len(set(done.ids)) == 24
    failures = {r.id: r.failure for r in done.results if r.failure}
    assert list(failures) == ["photos/p0003.jpg"]
    failure = failures["photos/p0003.jpg"]
    assert (failure.kind, failure.retryable) == ("crash", False)
    assert endpoint.crashes == alone + (concurrency > 1)


async def test_those_beside_a_crash_pay_nothing(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """What was in flight when the engine went down has its attempt back."""
    poison = photos(16) / "p0001.jpg"
    endpoint.script = {sent_as(poison): "crash_neighbours:0.2"}
    done = await ran(**asked, concurrency=8)
    assert {r.attempts for r in done.results if r.ok} == {1}


async def test_suspects_are_asked_about_one_at_a_time(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """After a crash every picture that was in flight is asked about again while no other one is."""
    folder = photos(12)
    poison = sent_as(folder / "p0002.jpg")
    in_flight: set[str] = set()
    again: list[int] = []

    def script(request: Any) -> str:
        sha = request.pictures[0].sha256
        if not endpoint.crashes:
            in_flight.add(sha)
            return "crash_neighbours:0.2" if sha == poison else "slow:30"  # none is answered before
        if len(endpoint.canaries) > 2 and sha in in_flight:  # a probe has found it up again
            again.append(endpoint.open_questions)
        return "crash_neighbours:0.2" if sha == poison else "slow:0.02"

    endpoint.script = script
    done = await ran(**asked, concurrency=12)
    assert len(done.results) == 12
    assert len(again) >= len(in_flight) > 1
    assert set(again) == {0}


async def test_a_restart_of_the_server_makes_nobody_a_poison(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Requests that are lost in several restarts are asked again, and no image fails over it."""
    photos(50)
    restarts = {4, 20, 44}
    endpoint.script = lambda request: "crash_neighbours:0.1" if request.chat in restarts else "ok"
    done = await ran(**asked, concurrency=6)
    assert [r.failure for r in done.results if r.failure] == []
    assert len(done.ids) == 50
    assert endpoint.crashes == 3


async def test_restarts_that_meet_the_same_image_again_make_it_no_poison(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A server that is restarted three times while one image is asked about answers it in the end."""
    photos(5)
    endpoint.script = lambda request: "crash_neighbours:0.1" if request.chat in (2, 3, 4) else "ok"
    done = await ran(**asked, concurrency=1)
    assert [r.failure for r in done.results if r.failure] == []
    assert (len(done.ids), endpoint.crashes) == (5, 3)


async def test_a_runner_that_stops_once_costs_one_attempt(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Ollama's runner dies and is started again at the next request: the image is answered."""
    photos(5)
    endpoint.script = ["ok", "runner_stopped"]
    done = await ran(**asked)
    assert sorted(r.attempts for r in done.results) == [1, 1, 1, 1, 2]


async def test_a_runner_that_stops_over_one_image_fails_it(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """The server stays up and says that its runner died, always over the same picture."""
    poison = photos(8) / "p0005.jpg"
    endpoint.script = {sent_as(poison): "runner_stopped"}
    done = await ran(**asked)
    assert [r.failure.kind for r in done.results if r.failure] == ["crash"]
    assert sum(q.pictures[0].sha256 == sent_as(poison) for q in endpoint.questions) <= 3


async def test_an_engine_that_crashes_over_everything_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Ten images that crash the engine and no answer: it is the engine, exit 4, and nothing is recorded."""
    photos(12)
    endpoint.script = lambda request: "runner_stopped"
    done = await ran(**asked)
    assert isinstance(done.error, UnavailableError)
    assert done.results == []
