"""The canary: before the first image a run proves that pictures reach the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, question
from endpoint import Endpoint
from endpoint.modes import html
from loop_clock import skipping
from running import briefly, ran

from vlmbatch.backends import confirm
from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.endpoints import supervisor
from vlmbatch.endpoints.canary import UNPROVEN, Canary
from vlmbatch.errors import FatalBackendError
from vlmbatch.events import EndpointPaused, Notice

Photos = Callable[..., Path]


@pytest.fixture(params=["ollama", "vllm"])
def asked(request: pytest.FixtureRequest, endpoint: Endpoint) -> dict[str, Any]:
    """Options that select the endpoint over one of the wires."""
    return {"backend": request.param, "base_url": endpoint.url, "model": "tiny-vision"}


def notices(events: list[Any]) -> list[str]:
    return [event.message for event in events if isinstance(event, Notice)]


async def test_a_model_that_sees_costs_two_canaries(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A model that sees gets one canary with a picture and one without, then the images, without a notice."""
    photos(6)
    done = await ran(**asked)
    assert [len(q.pictures) for q in endpoint.canaries] == [1, 0]
    assert (len(endpoint.questions), notices(done.events)) == (6, [])


async def test_a_model_that_gets_no_pictures_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If the counts leave no room for a picture and two colours are wrong, the run ends before any image."""
    photos(6)
    endpoint.blind = True
    done = await ran(**asked)
    assert isinstance(done.error, FatalBackendError)
    assert done.error.kind == "no_vision"
    for word in ("pictures do not reach the model", "--model", "--no-canary"):
        assert word in str(done.error)
    assert [len(q.pictures) for q in endpoint.canaries] == [1, 0, 1]
    assert (done.results, endpoint.questions) == ([], [])


async def test_a_model_that_guesses_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A model whose counts grow only with the words, and that names a wrong colour, has no vision."""
    photos(2)
    endpoint.blind = True
    endpoint.answer = lambda request: "Orange"
    assert isinstance((await ran(**asked)).error, FatalBackendError)


async def test_counts_that_never_change_prove_nothing(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """With a constant count the colour decides: a right one is a proof, a wrong one only a notice."""
    photos(2)
    endpoint.counts = "constant"
    done = await ran(**asked)
    assert (len(done.results), notices(done.events)) == (2, [])
    endpoint.answer_canary = lambda request: "A nice picture."
    done = await ran(**asked)
    assert len(done.results) == 2
    assert UNPROVEN in notices(done.events)[0]


@pytest.mark.parametrize("counts", ["none", "text"])
async def test_without_believable_counts_the_colour_decides(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], counts: str
) -> None:
    """Without counts, or with base64 counted as text, a right colour is a proof, a wrong one a notice."""
    photos(2)
    endpoint.counts = counts
    done = await ran(**asked)
    assert (len(done.results), notices(done.events)) == (2, [])
    assert [len(q.pictures) for q in endpoint.canaries] == [1, 0]
    endpoint.answer_canary = lambda request: "A nice picture."
    done = await ran(**asked)
    assert (len(done.results), done.error) == (2, None)
    assert UNPROVEN in notices(done.events)[0]


@pytest.mark.parametrize("counts", ["none", "text", "words"])
@pytest.mark.parametrize("colours", [("Red", "purple"), ("Amber.", "Violet"), ("Yellow", "It is magenta")])
async def test_one_right_colour_is_enough(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], counts: str, colours: tuple[str, str]
) -> None:
    """A model that names the first colour wrongly and the second one rightly sees, whatever is counted."""
    photos(1)
    endpoint.counts = counts
    left = [colours[0], "nothing", colours[1]]
    endpoint.answer_canary = lambda request: left[min(len(endpoint.canaries), 3) - 1]
    done = await ran(**asked)
    assert (len(done.results), notices(done.events)) == (1, [])


@pytest.mark.parametrize("counts", ["none", "text", "words", "real"])
async def test_a_small_model_that_names_colours_roughly_is_not_called_blind(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], counts: str
) -> None:
    """A model that says "Red" for orange and "Pink" for purple leads to a notice at most."""
    photos(1)
    endpoint.counts = counts
    endpoint.answer_canary = lambda request: "Pink" if len(endpoint.canaries) == 3 else "Red"
    done = await ran(**asked)
    assert (len(done.results), done.error) == (1, None)
    assert len(notices(done.events)) == (counts != "real")


@pytest.mark.parametrize("counts", ["none", "text", "constant", "words"])
@pytest.mark.parametrize(
    "words", ["I'm sorry, but I cannot see any image. Is it orange?", "This is a base64 encoded string."]
)
async def test_a_model_that_says_that_it_is_blind_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], counts: str, words: str
) -> None:
    """Without believable counts, a model that says that it sees no picture ends the run, with its words."""
    photos(4)
    endpoint.counts = counts
    endpoint.answer_canary = lambda request: words
    done = await ran(**asked)
    assert isinstance(done.error, FatalBackendError)
    assert (done.error.kind, done.results) == ("no_vision", [])
    assert words[:20] in str(done.error)


async def test_counts_that_contradict_the_words_lead_to_a_notice(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If a picture takes its tokens and the model says that it sees none, the run goes on with a notice."""
    photos(2)
    endpoint.answer_canary = lambda request: "I cannot see any image."
    done = await ran(**asked)
    assert len(done.results) == 2
    assert "I cannot see any image" in notices(done.events)[0]


async def test_a_canary_without_a_reply_stops_no_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A canary that hangs ends after a model load and the time of one image, and the run goes on."""
    photos(2)
    endpoint.canary = "hang"
    with skipping(endpoint, confirm.cold_s(60)):
        done = await ran(**asked, timeout=60)
    assert (len(done.results), len(endpoint.canaries)) == (2, 1)
    assert UNPROVEN in notices(done.events)[-1]


DENIED = {
    "a right colour": ("none", "orange"),
    "believable counts": ("real", "Some picture."),
    "a wrong colour": ("none", "Some picture."),
    "no answer": ("real", None),
    "an admission": ("real", "I cannot see any image."),
}


@pytest.mark.parametrize("case", DENIED)
async def test_a_model_that_the_endpoint_calls_blind_needs_a_proof(endpoint: Endpoint, case: str) -> None:
    """If the endpoint reports a model without vision, a right colour or believable counts overrule it."""
    endpoint.counts, words = DENIED[case]
    endpoint.canary = "400-image" if words is None else "ok"
    endpoint.answer_canary = lambda request: str(words)
    told: list[str] = []
    async with KINDS["vllm"].open(endpoint.url) as backend:
        await backend.preflight()
        proving = Canary(backend, question(), deadline_s=30, patience_s=30, tell=told.append).prove(
            denied=True
        )
        if case in ("a right colour", "believable counts"):
            await proving
        else:
            with pytest.raises(FatalBackendError, match=r"cannot see images.*--model") as caught:
                await proving
            assert caught.value.kind == "no_vision"
    assert told == []


async def test_a_right_colour_proves_a_model_that_counts_no_pictures(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If pictures take no token, the right colour proves that the model sees."""
    photos(2)
    endpoint.counts = "words"
    done = await ran(**asked)
    assert (len(done.results), done.error, notices(done.events)) == (2, None, [])
    assert [len(q.pictures) for q in endpoint.canaries] == [1, 0, 1]


async def test_failed_canaries_do_not_end_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """After three transient failures of the canary the run sends the images, with one pause and a notice."""
    photos(3)
    endpoint.canary = "500"
    done = await ran(**asked)
    assert (len(done.results), len(endpoint.canaries)) == (3, 3)
    assert len(done.of(EndpointPaused)) == 1
    assert UNPROVEN in notices(done.events)[0]


@pytest.mark.parametrize("mode", ["503-busy", "503-loading", "429"])
async def test_a_canary_that_is_always_refused_as_busy_does_not_end_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """If each canary gets 503 or 429 for as long as a model may load, the images decide, with a notice."""
    monkeypatch.setattr(supervisor, "cold_s", lambda timeout_s: 0.3)
    photos(3)
    endpoint.canary = mode
    done = await ran(**asked)
    assert (len(done.results), done.error) == (3, None)
    assert UNPROVEN in notices(done.events)[-1]


async def test_a_firewall_that_refuses_only_the_canary(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If the canary is refused with 403 and no known words, the images decide, with a notice."""
    photos(3)
    endpoint.refusal = lambda request: html(403, "Attention Required!") if request.is_canary else None
    done = await ran(**asked)
    assert (len(done.results), done.error) == (3, None)
    assert UNPROVEN in notices(done.events)[-1]


async def test_a_short_patience_leaves_time_for_the_images(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """With --give-up-after 0 a canary that is refused as busy is asked once, and then the images decide."""
    photos(3)
    endpoint.canary = "503-busy"
    done = await ran(**asked, give_up_after=0)
    assert (len(done.results), len(endpoint.canaries), done.error) == (3, 1, None)


async def test_a_canary_that_is_refused_during_a_load_is_asked_again(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A server that refuses the canary while it loads is proven after the load, without a notice."""
    photos(3)
    endpoint.canary = "503-loading"
    told: list[str] = []

    def answer_after_a_pause(event: object) -> None:
        if isinstance(event, EndpointPaused):
            endpoint.canary = "ok"
        if isinstance(event, Notice):
            told.append(event.message)

    batch = Batch(RunConfig.of("photos", **asked), [answer_after_a_pause], sleep=briefly)
    assert [result.ok async for result in batch] == [True] * 3
    assert told == []
    assert endpoint.canaries[0].mode == "503-loading"


@pytest.mark.parametrize("mode", ["400-image", "413", "context", "422", "bad_option"])
async def test_a_refused_canary_does_not_end_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], mode: str
) -> None:
    """If the endpoint refuses the canary, the run goes on with a notice: it may accept real pictures."""
    photos(2)
    endpoint.canary = mode
    done = await ran(**asked)
    assert len(done.results) == 2
    assert UNPROVEN in notices(done.events)[0]


@pytest.mark.parametrize(("mode", "kind"), [("401", "auth"), ("404-model", "model_not_found")])
async def test_a_fatal_canary_ends_the_run_before_the_first_image(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], mode: str, kind: str
) -> None:
    """An error that would affect every image ends the run at the canary, without a record."""
    photos(5)
    endpoint.canary = mode
    done = await ran(**asked)
    assert isinstance(done.error, FatalBackendError)
    assert (done.error.kind, done.results, endpoint.questions) == (kind, [], [])


async def test_no_canary_sends_only_the_images(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """With --no-canary a run sends no canary, only the images."""
    photos(2)
    endpoint.blind = True
    done = await ran(**asked, canary=False)
    assert (len(done.results), endpoint.canaries) == (2, [])


async def test_a_finished_folder_gets_no_canary(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A second run over a finished folder sends no canary."""
    photos(3)
    await ran(**asked, output="out.jsonl")
    endpoint.canaries.clear()
    await ran(**asked, output="out.jsonl")
    assert endpoint.canaries == []


async def test_canaries_have_the_load_options_of_the_questions(photos: Photos, endpoint: Endpoint) -> None:
    """Canaries and questions have the same load options, so that Ollama does not reload the model."""
    photos(1)
    await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", num_ctx=4096, keep_alive="1h")
    for received in [*endpoint.canaries, *endpoint.questions]:
        assert received.body["options"]["num_ctx"] == 4096
        assert received.body["keep_alive"] == "1h"


async def test_a_doubt_is_reported_once(endpoint: Endpoint) -> None:
    """An endpoint that is proven again, after it was down, does not report the same doubt again."""
    endpoint.canary = "400-image"
    told: list[str] = []
    async with KINDS["vllm"].open(endpoint.url) as backend:
        await backend.preflight()
        canary = Canary(backend, question(), deadline_s=30, patience_s=30, tell=told.append)
        await canary.prove()
        await canary.prove()
    assert len(told) == 1
    assert UNPROVEN in told[0]
