"""Before the first image a run proves that pictures reach the model, and afterwards it probes with one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from running import ran

from vlmbatch.endpoints.canary import UNPROVEN
from vlmbatch.errors import FatalBackendError
from vlmbatch.events import EndpointPaused, Notice

Photos = Callable[..., Path]


@pytest.fixture(params=["ollama", "vllm"])
def asked(request: pytest.FixtureRequest, endpoint: Endpoint) -> dict[str, Any]:
    """Options that ask the endpoint over one of the wires."""
    return {"backend": request.param, "base_url": endpoint.url, "model": "tiny-vision"}


def notices(events: list[Any]) -> list[str]:
    return [event.message for event in events if isinstance(event, Notice)]


async def test_a_model_that_sees_costs_two_questions(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """One with a picture, one without; then the images are asked about and nothing is said."""
    photos(6)
    done = await ran(**asked)
    assert [len(q.pictures) for q in endpoint.canaries] == [1, 0]
    assert (len(endpoint.questions), notices(done.events)) == (6, [])


async def test_a_model_that_gets_no_pictures_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Counts without room for a picture, and a second one unseen: exit 2, no record, no image sent."""
    photos(6)
    endpoint.blind = True
    done = await ran(**asked)
    assert isinstance(done.error, FatalBackendError)
    assert done.error.kind == "no_vision"
    for word in ("pictures do not reach the model", "--model", "--no-canary"):
        assert word in str(done.error)
    assert [len(q.pictures) for q in endpoint.canaries] == [1, 0, 1]
    assert (done.results, endpoint.questions) == ([], [])


async def test_a_model_that_guesses_is_found_out(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Counts that grow with the words alone, and a colour that is not the picture's: it sees nothing."""
    photos(2)
    endpoint.blind = True
    endpoint.answer = lambda request: "Orange"
    assert isinstance((await ran(**asked)).error, FatalBackendError)


async def test_counts_that_never_change_prove_nothing(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A server that reports one number for every question is believed if the model names the colour."""
    photos(2)
    endpoint.counts = "constant"
    done = await ran(**asked)
    assert (len(done.results), notices(done.events)) == (2, [])
    endpoint.answer_canary = lambda request: "A nice picture."
    done = await ran(**asked)
    assert len(done.results) == 2
    assert UNPROVEN in notices(done.events)[0]


async def test_no_counts_prove_nothing_either(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Where the endpoint counts no tokens the run goes on."""
    photos(2)
    endpoint.counts = "none"
    endpoint.answer_canary = lambda request: "A nice picture."
    done = await ran(**asked)
    assert (len(done.results), done.error) == (2, None)


async def test_a_model_that_sees_without_counting_pictures(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Some models look at pictures beside their context, at no token: naming the colour is proof enough."""
    photos(2)
    endpoint.counts = "words"
    done = await ran(**asked)
    assert (len(done.results), done.error, notices(done.events)) == (2, None, [])
    assert [len(q.pictures) for q in endpoint.canaries] == [1, 0, 1]


async def test_an_endpoint_that_fails_over_canaries_is_given_a_chance(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Three failures in passing, and the images themselves are asked about, with a word of doubt."""
    photos(3)
    endpoint.canary = "500"
    done = await ran(**asked)
    assert (len(done.results), len(endpoint.canaries)) == (3, 3)
    assert len(done.of(EndpointPaused)) == 1
    assert UNPROVEN in notices(done.events)[0]


@pytest.mark.parametrize("mode", ["400-image", "413", "context", "422"])
async def test_a_refused_canary_decides_nothing(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], mode: str
) -> None:
    """A picture of one colour may be refused where real ones are taken."""
    photos(2)
    endpoint.canary = mode
    done = await ran(**asked)
    assert len(done.results) == 2
    assert UNPROVEN in notices(done.events)[0]


@pytest.mark.parametrize(("mode", "kind"), [("401", "auth"), ("404-model", "model_not_found")])
async def test_a_wrong_set_up_shows_before_the_first_image(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], mode: str, kind: str
) -> None:
    """What no image can succeed with ends the run at the canary, and nothing is recorded."""
    photos(5)
    endpoint.canary = mode
    done = await ran(**asked)
    assert isinstance(done.error, FatalBackendError)
    assert (done.error.kind, done.results, endpoint.questions) == (kind, [], [])


async def test_no_canary_means_no_question_but_the_images(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """--no-canary asks only what the user asked for."""
    photos(2)
    endpoint.blind = True
    done = await ran(**asked, canary=False)
    assert (len(done.results), endpoint.canaries) == (2, [])


async def test_nothing_left_to_do_asks_nothing(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A second run over a finished folder sends no canary either."""
    photos(3)
    await ran(**asked, output="out.jsonl")
    endpoint.canaries.clear()
    await ran(**asked, output="out.jsonl")
    assert endpoint.canaries == []


async def test_canaries_leave_an_ollama_model_loaded(photos: Photos, endpoint: Endpoint) -> None:
    """Options that load a model anew are the same in canaries and questions."""
    photos(1)
    await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", num_ctx=4096, keep_alive="1h")
    for question in [*endpoint.canaries, *endpoint.questions]:
        assert question.body["options"]["num_ctx"] == 4096
        assert question.body["keep_alive"] == "1h"
