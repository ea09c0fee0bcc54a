"""Runs with fallbacks: who answers when the first is away, refuses or answers badly, and what records say."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_contract import closed_port
from command import run as command
from endpoint import Endpoint, Model
from running import ran

from vlmbatch.errors import ConfigError, FatalBackendError, UnavailableError
from vlmbatch.events import EndpointPaused, RunStarted
from vlmbatch.pipeline.processor import FREE_WAITS

Photos = Callable[..., Path]


@pytest.fixture
def other() -> Iterator[Endpoint]:
    """The endpoint to fall back to, with a model of another name."""
    with Endpoint(models={"big-vision": Model(vision=True)}) as running:
        yield running


@pytest.fixture
def asked(endpoint: Endpoint, other: Endpoint) -> dict[str, Any]:
    """Options that ask one endpoint first, and the other where that fails."""
    return {
        "backend": "ollama",
        "base_url": endpoint.url,
        "model": "tiny-vision",
        "fallback": f"vllm:big-vision@{other.url}/v1",
    }


async def test_what_is_refused_is_answered_by_the_fallback(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """A picture that the first refuses gets an answer from the second, and its record says who, and why."""
    photos(12)
    endpoint.script = lambda request: "content_filter" if request.chat == 3 else "ok"
    done = await ran(**asked, concurrency=1)
    assert done.error is None
    assert all(result.ok for result in done.results)
    (fallen,) = [result for result in done.results if result.fallback]
    record = fallen.to_record()
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
    assert [r.to_record().get("fallback") for r in done.results if r is not fallen] == [None] * 11
    assert done.summary is not None
    assert done.summary.fallbacks == 1
    assert len(other.questions) == 1


async def test_a_bad_answer_goes_to_the_fallback_after_being_asked_differently(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """Empty answers are asked for again first; the fallback gets the question as it was, not as it became."""
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


async def test_the_first_dies_at_image_50(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """The endpoint goes away for good in the middle: the fallback answers the rest, and the records tell."""
    photos(120)
    endpoint.script = lambda request: "down" if (request.chat or 0) == 50 else "ok"
    done = await ran(**asked, concurrency=4)
    assert done.error is None
    assert len(done.ids) == len(set(done.ids)) == 120
    assert all(result.ok for result in done.results)
    who = Counter(result.endpoint.backend for result in done.results)
    assert 45 <= who["ollama"] <= 50
    reasons = {result.fallback and result.fallback.reason for result in done.results}
    assert reasons == {None, "unavailable"}
    paused = [event for event in done.events if isinstance(event, EndpointPaused)]
    assert [event.others_up for event in paused] == [True]
    assert all((r.endpoint.backend == "vllm") is (r.fallback is not None) for r in done.results)


async def test_the_first_is_asked_again_once_it_is_back(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """A fallback stands in for as long as the outage lasts, and no longer."""
    photos(200)
    other.delay = 0.01
    endpoint.script = lambda request: "down:0.1" if request.chat == 10 else "ok"
    done = await ran(**asked, concurrency=2)
    assert all(result.ok for result in done.results)
    assert other.questions
    assert len(endpoint.questions) > 20


async def test_only_for_the_reasons_that_are_named(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """With --fallback-on bad-answer, what is refused is a failure as without a fallback."""
    photos(6)
    endpoint.script = lambda request: "content_filter" if request.chat == 3 else "ok"
    done = await ran(**asked, fallback_on="bad-answer", concurrency=1)
    assert [result.failure.kind for result in done.results if result.failure] == ["refused"]
    assert not other.questions


async def test_when_both_refuse_the_record_has_both(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """The failure is that of the first, its message tells of the other, and it is one for good."""
    photos(6)
    endpoint.script = lambda request: "content_filter" if request.chat == 3 else "ok"
    other.script = lambda request: "400"
    done = await ran(**asked, concurrency=1)
    (failed,) = [result.failure for result in done.results if result.failure]
    assert (failed.kind, failed.retryable) == ("refused", False)
    assert "; the fallback: " in failed.message
    assert "temperature is not what it should be" in failed.message


async def test_a_fallback_that_is_away_leaves_it_for_the_next_run(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """What the first refused is asked again by the next run, when the fallback may be there."""
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


async def test_the_first_may_be_away_from_the_start(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """With its model named, the run goes on with the fallback alone; a later one skips all that."""
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


async def test_without_a_model_name_the_first_has_to_be_there(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Nobody knows then whose answers the records would be: exit 4, and what to type."""
    photos(2)
    endpoint.down()
    done = await ran(**(asked | {"model": None}), give_up_after=0.05)
    assert isinstance(done.error, UnavailableError)
    assert "--model" in str(done.error)


async def test_fallbacks_are_asked_one_after_the_other(photos: Photos, endpoint: Endpoint) -> None:
    """What the first fallback refuses too goes to the second."""
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


async def test_a_quota_that_is_used_up_goes_to_the_fallback(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """What ends a run without a fallback is an outage of the first with one."""
    photos(20)
    endpoint.script = lambda request: "401" if (request.chat or 0) >= 5 else "ok"
    done = await ran(**asked, concurrency=2)
    assert done.error is None
    assert all(result.ok for result in done.results)
    assert other.questions


async def test_a_mistake_in_the_first_is_not_hidden(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """A model that cannot see, or is not there, ends the run at once and is no reason to ask another."""
    photos(2)
    for model in ("tiny-text", "tiny-visoin"):
        done = await ran(**(asked | {"model": model}))
        assert isinstance(done.error, FatalBackendError)
    assert not other.questions


async def test_a_mistake_in_the_fallback_is_told_at_the_start(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """And not hours later, when it would be needed for the first time."""
    photos(2)
    done = await ran(**(asked | {"fallback": f"vllm:biig@{other.url}/v1"}))
    assert isinstance(done.error, FatalBackendError)
    assert "big-vision" in str(done.error)
    assert not endpoint.questions


async def test_the_key_of_the_first_is_not_for_the_fallback(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """--api-key goes to who was named with it, and to nobody else."""
    photos(3)
    endpoint.script = lambda request: "content_filter"
    await ran(**asked, api_key="only-for-the-first")
    assert other.requests
    assert not [r for r in other.requests if "only-for-the-first" in str(r.headers)]


async def test_the_headers_of_the_first_are_not_for_the_fallback(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """--header goes to the endpoint that was named with it, and to no other host."""
    photos(3)
    endpoint.script = lambda request: "content_filter"
    await ran(**asked, header="X-Secret: only-for-the-first")
    assert [r for r in endpoint.requests if "only-for-the-first" in str(r.headers)]
    assert other.questions
    assert not [r for r in other.requests if "only-for-the-first" in str(r.headers)]


async def test_a_lost_attempt_of_the_first_gives_the_fallback_none(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """An attempt that went down with the first is given back there; the fallback has --retries, no more."""
    photos(1)
    endpoint.script = ["rst", "down:0.05", "content_filter"]  # the first costs nothing, on a kept connection
    other.script = lambda request: "500"
    done = await ran(**asked, fallback_on="rejected", retries=1)
    assert len(endpoint.questions) == 3
    assert len(other.questions) == 2
    assert [result.ok for result in done.results] == [False]


async def test_the_fallback_too_may_lose_a_connection(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """A kept connection that the first had closed leaves the fallback its own free question."""
    photos(1)
    endpoint.script = ["rst", "content_filter"]
    other.script = ["rst"]
    ollama = {"fallback": f"ollama:big-vision@{other.url}"}  # no other request takes its connection
    done = await ran(**(asked | ollama), retries=0)
    assert len(endpoint.questions) == len(other.questions) == 2
    assert [result.ok for result in done.results] == [True]


async def test_the_fallback_too_may_turn_an_image_away(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """An image that the first has turned away too often may be turned away by the fallback as often."""
    photos(1)
    endpoint.script = lambda request: "503-busy"
    other.script = ["503-busy"] * 15
    done = await ran(**asked, retries=0)
    assert len(endpoint.questions) + 15 > FREE_WAITS
    assert len(other.questions) == 16
    assert [result.ok for result in done.results] == [True]


async def test_copies_of_an_answer_of_the_fallback_say_so(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """A duplicate has the answer of the other image and names who gave it, also in a later run."""
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


async def test_the_cache_keeps_no_answer_of_a_fallback(
    photos: Photos, endpoint: Endpoint, other: Endpoint, asked: dict[str, Any]
) -> None:
    """What --cache holds was answered by the model that its key names."""
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
async def test_what_is_mistyped_is_told(photos: Photos, option: dict[str, str], told: str) -> None:
    """A fallback or a reason that nobody knows is exit 2 with an example, before anything is asked."""
    photos(1)
    with pytest.raises(ConfigError, match=told):
        await ran(**option)


def test_the_command_tells_of_it(photos: Photos, endpoint: Endpoint, other: Endpoint) -> None:
    """`vlmbatch run --fallback` answers, says at the start whom it may ask, and at the end who answered."""
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


async def test_nobody_at_all(photos: Photos) -> None:
    """Neither the first nor the fallback is there: exit 4."""
    photos(1)
    with closed_port() as one, closed_port() as two:
        done = await ran(
            backend="vllm", base_url=one, model="m", fallback=f"vllm:n@{two}/v1", give_up_after=0.01
        )
    assert isinstance(done.error, UnavailableError)
