"""Runs with fallbacks: they answer if the first endpoint is down, refuses or answers badly."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_contract import closed_port
from command import run as command
from endpoint import Endpoint, Model
from outages import back
from running import ran

from vlmbatch.endpoints.crash_history import MOST_WAITS
from vlmbatch.errors import ConfigError, FatalBackendError, UnavailableError
from vlmbatch.events import EndpointPaused, Event, RunStarted

Photos = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("all_from_the_start")


@pytest.fixture
def other() -> Iterator[Endpoint]:
    """The fallback, with a model of another name."""
    with Endpoint(models={"big-vision": Model(vision=True)}) as running:
        yield running


@pytest.fixture
def asked(endpoint: Endpoint, other: Endpoint) -> dict[str, Any]:
    """Options that select one endpoint first, and the other one as its fallback."""
    return {
        "backend": "ollama",
        "base_url": endpoint.url,
        "model": "tiny-vision",
        "fallback": f"vllm:big-vision@{other.url}/v1",
    }


async def test_a_refused_image_is_answered_by_the_fallback(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """An image that the first refuses is answered by the fallback; its record names both and the reason."""
    photos(12)
    endpoint.script = lambda request: "content_filter" if request.chat == 3 else "ok"
    done = await ran(**asked, concurrency=1)
    assert done.error is None
    assert all(result.ok for result in done.results)
    (by_fallback,) = [result for result in done.results if result.fallback]
    record = by_fallback.to_record()
    told = record["fallback"]
    assert [record[name] for name in ("backend", "model", "endpoint")] == [
        "vllm",
        "big-vision",
        f"{other.url}/v1",
    ]
    assert {name: told[name] for name in told if name != "message"} == {
        "reason": "rejected",
        "kind": "refused",
        "backend": "ollama",
        "endpoint": endpoint.url,
        "model": "tiny-vision",
    }
    assert "filter" in told["message"]
    assert [r.to_record().get("fallback") for r in done.results if r is not by_fallback] == [None] * 11
    assert done.summary is not None
    assert done.summary.fallbacks == 1
    assert len(other.questions) == 1


async def test_a_bad_answer_goes_to_the_fallback_after_its_retries(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """Empty answers are retried first; then the fallback gets the original question, not the changed one."""
    photos(1)
    endpoint.script = ["empty", "empty", "empty"]
    done = await ran(**asked)
    (result,) = done.results
    assert result.ok
    assert result.fallback is not None
    assert (result.fallback.reason, result.fallback.kind) == ("bad-answer", "empty")
    assert result.attempts == 4
    assert len(endpoint.questions) == 3
    (question,) = other.questions
    assert question.body["temperature"] == 0.0


async def test_the_fallback_answers_after_the_first_dies(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """If the first goes down for good at image 50, the fallback answers the rest, and the records show it."""
    photos(120)
    endpoint.script = lambda request: "down" if (request.chat or 0) == 50 else "ok"
    done = await ran(**asked, concurrency=4)
    assert done.error is None
    assert len(done.ids) == len(set(done.ids)) == 120
    assert all(result.ok for result in done.results)
    backends = Counter(result.endpoint.backend for result in done.results)
    assert 45 <= backends["ollama"] <= 50
    reasons = {result.fallback and result.fallback.reason for result in done.results}
    assert reasons == {None, "unavailable"}
    paused = [event for event in done.events if isinstance(event, EndpointPaused)]
    assert [event.others_up for event in paused] == [True]
    assert all((r.endpoint.backend == "vllm") is (r.fallback is not None) for r in done.results)


async def test_the_first_gets_images_again_after_its_outage(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """After an outage the first endpoint gets the images again."""
    photos(200)
    other.hold_until(lambda: len(endpoint.questions) > 20, after=10)
    endpoint.script = lambda request: "down" if request.chat == 10 else "ok"

    def act(event: Event) -> None:
        if other.questions:  # it has stepped in
            endpoint.up()

    done = await ran(**asked, concurrency=2, on_event=act)
    assert all(result.ok for result in done.results)
    assert other.questions
    assert len(endpoint.questions) > 20


async def test_a_fallback_is_used_only_for_its_reasons(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """With --fallback-on bad-answer, a refused image is a failure, as without a fallback."""
    photos(6)
    endpoint.script = lambda request: "content_filter" if request.chat == 3 else "ok"
    done = await ran(**asked, fallback_on="bad-answer", concurrency=1)
    assert [result.failure.kind for result in done.results if result.failure] == ["refused"]
    assert not other.questions


async def test_a_record_has_the_refusals_of_both(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """If both refuse, the record has the first's failure, with the fallback's message, and is final."""
    photos(6)
    endpoint.script = lambda request: "content_filter" if request.chat == 3 else "ok"
    other.script = lambda request: "400"
    done = await ran(**asked, concurrency=1)
    (failed,) = [result.failure for result in done.results if result.failure]
    assert (failed.kind, failed.retryable) == ("refused", False)
    assert "; the fallback: " in failed.message
    assert "the request is not what it should be" in failed.message


async def test_a_refused_image_is_left_for_the_next_run_if_the_fallback_is_down(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """If the fallback is down, a refused image is retryable, and the next run gets the fallback's answer."""
    photos(6)
    endpoint.script = lambda request: "content_filter" if request.chat == 3 else "ok"
    other.down()
    done = await ran(**asked, concurrency=1, output="out.jsonl", give_up_after=0.05)
    assert done.error is None
    (failed,) = [result.failure for result in done.results if result.failure]
    assert (failed.kind, failed.retryable) == ("refused", True)
    other.up()
    endpoint.script = lambda request: "content_filter"
    again = await ran(**asked, output="out.jsonl")
    assert [(r.ok, r.endpoint.model) for r in again.results] == [(True, "big-vision")]


async def test_the_first_may_be_down_at_the_start(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """With --model the run goes on with the fallback alone, and a later run skips its answers."""
    photos(8)
    endpoint.down()
    done = await ran(**asked, output="out.jsonl", give_up_after=0.05)
    assert done.error is None
    assert [r.endpoint.model for r in done.results] == ["big-vision"] * 8
    assert {r.fallback.reason for r in done.results if r.fallback} == {"unavailable"}
    endpoint.up()
    (Path("photos") / "p0000.jpg").rename("photos/q.jpg")
    again = await ran(**asked, output="out.jsonl")
    assert again.error is None
    assert [r.duplicate_of for r in again.results] == ["photos/p0000.jpg"]
    assert again.summary is not None
    assert again.summary.skipped == 7


async def test_without_a_model_name_the_first_must_be_up(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If the first is down at the start and no model is named, the error is unavailable and names --model."""
    photos(2)
    endpoint.down()
    done = await ran(**(asked | {"model": None}), give_up_after=0.05)
    assert isinstance(done.error, UnavailableError)
    assert "--model" in str(done.error)


async def test_fallbacks_are_used_in_their_order(photos: Photos, endpoint: Endpoint) -> None:
    """An image that the first fallback refuses too goes to the second fallback."""
    photos(1)
    with Endpoint(models={"b": Model()}) as second, Endpoint(models={"c": Model()}) as third:
        endpoint.script = second.script = lambda request: "content_filter"
        done = await ran(
            backend="ollama",
            base_url=endpoint.url,
            model="tiny-vision",
            fallback=(f"ollama:b@{second.url}", f"vllm:c@{third.url}/v1"),
        )
    (result,) = done.results
    assert (result.ok, result.endpoint.model) == (True, "c")
    assert result.fallback is not None
    assert result.fallback.model == "tiny-vision"
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    assert len(started.fallbacks) == 2


async def test_a_refused_key_goes_to_the_fallback(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """If the first starts to refuse the key, the run does not end: the fallback answers the rest."""
    photos(20)
    endpoint.script = lambda request: "401" if (request.chat or 0) >= 5 else "ok"
    done = await ran(**asked, concurrency=2)
    assert done.error is None
    assert all(result.ok for result in done.results)
    assert other.questions


async def test_an_error_of_the_first_is_not_hidden(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """If the first's model has no vision or does not exist, the run ends, and the fallback gets no image."""
    photos(2)
    for model in ("tiny-text", "tiny-visoin"):
        done = await ran(**(asked | {"model": model}))
        assert isinstance(done.error, FatalBackendError)
    assert not other.questions


async def test_an_error_of_the_fallback_ends_the_run_at_the_start(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """An unknown model of the fallback ends the run before the first question."""
    photos(2)
    done = await ran(**(asked | {"fallback": f"vllm:biig@{other.url}/v1"}))
    assert isinstance(done.error, FatalBackendError)
    assert "big-vision" in str(done.error)
    assert not endpoint.questions


@pytest.mark.parametrize(
    ("model", "told"),
    [("", "2 models to choose from: a, b; name one with --fallback"), (":c", "has no model 'c'")],
)
async def test_an_error_about_the_fallback_names_its_flag(
    photos: Photos, endpoint: Endpoint, model: str, told: str
) -> None:
    """An error about the model of a fallback names the fallback and --fallback, and no flag of the first."""
    photos(1)
    with Endpoint(models={"a": Model(), "b": Model()}) as other:
        done = await ran(
            backend="ollama",
            base_url=endpoint.url,
            model="tiny-vision",
            fallback=f"vllm{model}@{other.url}/v1",
        )
    assert done.error is not None
    assert done.error.exit_code == 2
    assert f"the fallback {other.url}/v1" in str(done.error)
    assert told in str(done.error)
    assert "--model" not in str(done.error)


async def test_the_fallback_does_not_get_the_key_of_the_first(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """The fallback's requests never contain the --api-key of the first."""
    photos(3)
    endpoint.script = lambda request: "content_filter"
    await ran(**asked, api_key="only-for-the-first")
    assert other.requests
    assert not [r for r in other.requests if "only-for-the-first" in str(r.headers)]


async def test_the_fallback_does_not_get_the_headers_of_the_first(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """The first's requests contain --header, and the fallback's never do."""
    photos(3)
    endpoint.script = lambda request: "content_filter"
    await ran(**asked, header="X-Secret: only-for-the-first")
    assert [r for r in endpoint.requests if "only-for-the-first" in str(r.headers)]
    assert other.questions
    assert not [r for r in other.requests if "only-for-the-first" in str(r.headers)]


async def test_a_refund_at_the_first_gives_the_fallback_no_attempt(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """An attempt lost with the first is refunded there only; the fallback has --retries and no more."""
    photos(1)
    endpoint.script = ["rst", "down", "content_filter"]  # rst is free, on a kept connection
    other.script = lambda request: "500"
    done = await ran(**asked, fallback_on="rejected", retries=1, on_event=back(endpoint))
    assert len(endpoint.questions) == 3
    assert len(other.questions) == 2
    assert [result.ok for result in done.results] == [False]


async def test_the_fallback_has_its_own_free_retry(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """A free retry for a kept connection at the first leaves the fallback its own free retry."""
    photos(1)
    endpoint.script = ["rst", "content_filter"]
    other.script = ["rst"]
    ollama = {"fallback": f"ollama:big-vision@{other.url}"}  # no other request uses its connection
    done = await ran(**(asked | ollama), retries=0)
    assert len(endpoint.questions) == len(other.questions) == 2
    assert [result.ok for result in done.results] == [True]


async def test_the_fallback_has_its_own_count_of_503s(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """After too many 503s of the first endpoint, the fallback may answer 503 as often."""
    photos(1)
    endpoint.script = lambda request: "503-busy"
    other.script = ["503-busy"] * 15
    done = await ran(**asked, retries=0)
    assert len(endpoint.questions) + 15 > MOST_WAITS
    assert len(other.questions) == 16
    assert [result.ok for result in done.results] == [True]


async def test_a_fallback_that_steps_in_has_its_own_count_of_503s(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """If the first endpoint goes down after many 503s, the fallback that steps in may answer 503 as often."""
    photos(1)
    endpoint.script = lambda request: "503-busy" if (request.chat or 0) <= MOST_WAITS else "down"
    other.hold_until(lambda: len(endpoint.questions) > MOST_WAITS)
    other.canary, other.script = "held", ["503-busy"] * 15  # it is proven, and steps in, only then
    done = await ran(**asked)
    assert len(other.questions) >= 16
    assert [result.ok for result in done.results] == [True]


async def test_duplicates_name_the_fallback_that_answered(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """A duplicate has the original's answer and names the fallback that gave it, also in a later run."""
    folder = photos(1)
    (folder / "copy.jpg").write_bytes((folder / "p0000.jpg").read_bytes())
    endpoint.script = lambda request: "content_filter"
    done = await ran(**asked, output="out.jsonl")
    (folder / "later.jpg").write_bytes((folder / "p0000.jpg").read_bytes())
    again = await ran(**asked, output="out.jsonl")
    records = [result.to_record() for result in [*done.results, *again.results]]
    assert {record["model"] for record in records} == {"big-vision"}
    assert {record["fallback"]["model"] for record in records} == {"tiny-vision"}
    assert len(other.questions) == 1


async def test_the_cache_stores_no_answer_of_a_fallback(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """The cache does not store the answer of a fallback: the next run queries the first again."""
    photos(1)
    endpoint.script = ["content_filter"]
    await ran(**asked, cache="cache")
    done = await ran(**asked, cache="cache")
    assert [(r.cached, r.endpoint.model) for r in done.results] == [(False, "tiny-vision")]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"fallback": "gpt-4o"}, "names no backend"),
        ({"fallback": "auto:x"}, "names no backend"),
        ({"fallback": "vllm:m@http://host:99999/v1"}, "is not a URL"),
        ({"fallback_on": "never"}, "unavailable,rejected,bad-answer"),
    ],
)
async def test_a_mistyped_fallback_is_a_config_error(
    photos: Photos, option: dict[str, str], told: str
) -> None:
    """An invalid fallback or reason is a ConfigError with the valid form, before any request."""
    photos(1)
    with pytest.raises(ConfigError, match=told):
        await ran(**option)


def test_the_command_reports_the_fallback(photos: Photos, endpoint: Endpoint, other: Endpoint) -> None:
    """`vlmbatch run --fallback` names the fallback at the start, and counts its answers at the end."""
    photos(5)
    endpoint.script = lambda request: "content_filter" if (request.chat or 0) < 2 else "ok"
    done = command(
        *("run", "photos", "-b", "ollama", "-m", "tiny-vision", "-c", "1"),
        *("--base-url", endpoint.url, "--fallback", f"vllm:big-vision@{other.url}/v1"),
    )
    assert done.returncode == 0
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert Counter(record["backend"] for record in records) == {"ollama": 3, "vllm": 2}
    assert "fallback: big-vision (vllm, " in done.stderr
    assert "2 of them by a fallback" in done.stderr
    assert f"{other.url}/v1 (big-vision): 2 answered" in done.stderr


async def test_first_and_fallback_down_are_unavailable(photos: Photos) -> None:
    """If the first and the fallback are both down, the run is unavailable."""
    photos(1)
    with closed_port() as one, closed_port() as two:
        done = await ran(
            backend="vllm", base_url=one, model="m", fallback=f"vllm:n@{two}/v1", give_up_after=0.01
        )
    assert isinstance(done.error, UnavailableError)
