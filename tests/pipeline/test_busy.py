"""A busy server costs no image; an image that is refused as busy when sent alone fails in the end."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Received
from endpoint.wires import error
from running import ran
from selection import long

from vlmbatch.endpoints.crash_history import MOST_WAITS, OTHER_ANSWERS
from vlmbatch.errors import UnavailableError
from vlmbatch.events import ConcurrencyChanged

Photos = Callable[..., Path]


@pytest.fixture(autouse=True)
def hardly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are a thousandth of the time: these runs wait often."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / 1000)

    monkeypatch.setattr("running.briefly", sleep)


@pytest.fixture(params=["ollama", "vllm"])
def asked(request: pytest.FixtureRequest, endpoint: Endpoint) -> dict[str, Any]:
    """Options that select the endpoint over one of the wires."""
    return {"backend": request.param, "base_url": endpoint.url, "model": "tiny-vision"}


@pytest.mark.parametrize("mode", ["503-busy", long("503-empty"), long("429"), "429:0.01"])
async def test_a_number_that_overruns_the_server_costs_no_image(
    photos: Photos, endpoint: Endpoint, mode: str
) -> None:
    """A server of four slots that refuses all other requests answers 300 images at `-c 64`."""
    photos(300)
    endpoint.delay = 0.02
    endpoint.script = lambda request: mode if endpoint.open_questions > 4 else "ok"
    done = await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision", concurrency=64)
    assert done.error is None
    assert [result.ok for result in done.results] == [True] * 300
    limits = [event.concurrency for event in done.of(ConcurrencyChanged)]
    assert min(limits) <= 64 / 4


async def test_a_fixed_number_grows_back(photos: Photos, endpoint: Endpoint) -> None:
    """After a while in which the server was busy, the run sends the fixed number of requests again."""
    photos(300)
    endpoint.delay = 0.001
    endpoint.script = lambda request: "503-busy" if (request.chat or 0) < 20 else "ok"
    done = await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision", concurrency=8)
    limits = [event.concurrency for event in done.of(ConcurrencyChanged)]
    assert done.error is None
    assert (min(limits) < 8, limits[-1]) == (True, 8)


async def test_a_server_that_is_busy_for_all_costs_no_image(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If a server is busy for every request, also a canary, far more than twenty times, no image fails."""
    photos(2)
    assert (await ran(**asked, limit=1, output="o.jsonl")).error is None
    busy = [error(asked["backend"], 503, "server busy")] * 4 * MOST_WAITS
    endpoint.refusal = lambda request: busy.pop() if busy else None
    done = await ran(**asked, canary=False, concurrency=1, output="o.jsonl")
    assert done.error is None
    assert [result.ok for result in done.results] == [True]
    assert len(endpoint.questions) > 2 * MOST_WAITS


@pytest.mark.parametrize("mode", ["503-busy", "503-empty", "429"])
async def test_an_image_that_alone_is_refused_as_busy_fails(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], mode: str
) -> None:
    """An image fails if it is refused as busy without other requests, but another picture is answered."""
    photos(4)
    seen: list[str] = []

    def script(request: Received) -> str:
        seen.append(request.pictures[0].sha256)
        return mode if request.pictures[0].sha256 == seen[0] else "ok"

    endpoint.script = script
    done = await ran(**asked, concurrency=2)
    assert done.error is None
    [failure] = [result.failure for result in done.results if result.failure]
    assert (failure.kind in ("busy", "down"), failure.retryable) == (True, True)
    assert "another picture" in failure.message
    assert seen.count(seen[0]) == MOST_WAITS + OTHER_ANSWERS


async def test_a_server_that_stays_busy_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A server that is busy for the whole patience ends the run with exit code 4, and no image fails."""
    photos(3)
    assert (await ran(**asked, limit=1, output="o.jsonl")).error is None
    endpoint.script = lambda request: "503-busy"
    endpoint.canary = "503-busy"
    done = await ran(**asked, concurrency=2, give_up_after=0.3, output="o.jsonl")
    assert isinstance(done.error, UnavailableError)
    assert done.results == []
