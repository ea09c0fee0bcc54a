"""Crashes of an engine: only the image that causes them fails, and all other images are answered."""

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
    """Options that select the endpoint over one of the wires."""
    return {"backend": request.param, "base_url": endpoint.url, "model": "tiny-vision"}


def sent_as(photo: Path) -> str:
    """The SHA-256 of the picture that is sent for this photo."""
    picture = prepare(photo.read_bytes(), ImageOptions())
    return hashlib.sha256(base64.b64decode(picture.data)).hexdigest()


@pytest.mark.parametrize(("how", "alone"), [("crash_neighbours:0.5", 4), ("crash_neighbours:0.5:500", 2)])
@pytest.mark.parametrize("concurrency", [8, 1])
async def test_v6_one_poison_image_fails_alone(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], how: str, alone: int, concurrency: int
) -> None:
    """Only the image that crashes the engine fails, as `crash`.

    An engine that dies without a report gets the image more often: a restart looks the same.
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


async def test_a_crash_costs_other_images_no_attempt(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Images in flight during a crash of another image get their attempt back."""
    poison = photos(16) / "p0001.jpg"
    endpoint.script = {sent_as(poison): "crash_neighbours:0.5"}
    done = await ran(**asked, concurrency=8)
    assert {r.attempts for r in done.results if r.ok} == {1}


async def test_suspects_are_sent_one_at_a_time(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """After a crash each picture that was in flight is sent again while no other request is open."""
    folder = photos(12)
    poison = sent_as(folder / "p0002.jpg")
    in_flight: set[str] = set()
    resent: list[int] = []

    def script(request: Any) -> str:
        sha = request.pictures[0].sha256
        if not endpoint.crashes:
            in_flight.add(sha)
            return "crash_neighbours:0.5" if sha == poison else "slow:30"  # no answer comes before the crash
        if len(endpoint.canaries) > 2 and sha in in_flight:  # a probe has found the endpoint up
            resent.append(endpoint.open_questions)
        return "crash_neighbours:0.5" if sha == poison else "slow:0.02"

    endpoint.script = script
    done = await ran(**asked, concurrency=12)
    assert len(done.results) == 12
    assert len(resent) >= len(in_flight) > 1
    assert set(resent) == {0}


async def test_restarts_of_the_server_fail_no_image(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Requests that are lost in several restarts are retried, and no image fails."""
    photos(50)
    restarts = {4, 20, 44}
    endpoint.script = lambda request: "crash_neighbours:0.5" if request.chat in restarts else "ok"
    done = await ran(**asked, concurrency=6)
    assert [r.failure for r in done.results if r.failure] == []
    assert len(done.ids) == 50
    assert endpoint.crashes == 3


async def test_restarts_at_the_same_image_do_not_fail_it(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """An image that was in flight during three restarts of the server is answered in the end."""
    photos(5)
    endpoint.script = lambda request: "crash_neighbours:0.5" if request.chat in (2, 3, 4) else "ok"
    done = await ran(**asked, concurrency=1)
    assert [r.failure for r in done.results if r.failure] == []
    assert (len(done.ids), endpoint.crashes) == (5, 3)


async def test_a_runner_that_stops_once_costs_one_attempt(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If Ollama's runner dies once, its image is retried and answered at the second attempt."""
    photos(5)
    endpoint.script = ["ok", "runner_stopped"]
    done = await ran(**asked)
    assert sorted(r.attempts for r in done.results) == [1, 1, 1, 1, 2]


async def test_a_runner_that_always_stops_at_one_image_fails_it(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If Ollama's runner dies at each request of an image, only this image fails, after three at most."""
    poison = photos(8) / "p0005.jpg"
    endpoint.script = {sent_as(poison): "runner_stopped"}
    done = await ran(**asked)
    assert [r.failure.kind for r in done.results if r.failure] == ["crash"]
    assert sum(q.pictures[0].sha256 == sent_as(poison) for q in endpoint.questions) <= 3


async def test_an_engine_that_crashes_at_every_image_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If every image crashes the engine, the run ends as unavailable, without a record."""
    photos(12)
    endpoint.script = lambda request: "runner_stopped"
    done = await ran(**asked)
    assert isinstance(done.error, UnavailableError)
    assert done.results == []
