"""Runs over several endpoints: they share the images, and no image is lost if one of them dies."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from backend_contract import closed_port
from endpoint import Endpoint, Model
from outages import back
from running import ran
from waiting import until

from vlmbatch.endpoints import preflight
from vlmbatch.endpoints.discovery import EndpointUrls
from vlmbatch.errors import ConfigError, FatalBackendError, UnavailableError
from vlmbatch.events import (
    ConcurrencyChanged,
    EndpointPaused,
    EndpointResumed,
    Notice,
    QueueMeasured,
    RunStarted,
)
from vlmbatch.observers import endpoint_lines

Photos = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("all_from_the_start")


@pytest.fixture
def three() -> Iterator[list[Endpoint]]:
    """Three endpoints of unequal speed: one slot, two and four."""
    with ExitStack() as stack:
        yield [stack.enter_context(Endpoint(slots=slots, delay=0.02)) for slots in (1, 2, 4)]


def at(endpoints: list[Endpoint], backend: str = "vllm") -> dict[str, Any]:
    """Options that select all these endpoints."""
    return {"backend": backend, "model": "tiny-vision", "base_url": tuple(e.url for e in endpoints)}


@pytest.mark.parametrize("backend", ["vllm", "ollama", "auto"])
async def test_all_endpoints_share_the_images(photos: Photos, three: list[Endpoint], backend: str) -> None:
    """Each image is answered once; records and summary name the endpoint that answered."""
    photos(60)
    for each in three:
        each.hold_until(lambda: all(one.questions for one in three))
    done = await ran(**at(three, backend), concurrency=2)
    assert done.error is None
    assert len(done.ids) == len(set(done.ids)) == 60
    asked = Counter({e.url: len(e.questions) for e in three})
    assert sum(asked.values()) == 60
    assert all(asked.values())
    by_url = Counter(result.endpoint.url.removesuffix("/v1") for result in done.results)
    assert by_url == asked
    assert done.summary is not None
    assert {row.url.removesuffix("/v1"): row.answered for row in done.summary.endpoints} == asked
    assert len(endpoint_lines(done.summary)) == 3


async def test_an_endpoint_that_dies_loses_no_image(photos: Photos, three: list[Endpoint]) -> None:
    """If the fastest of three endpoints dies, all images are answered; the summary counts by endpoint."""
    photos(90)
    fastest = three[2]
    fastest.script = lambda request: "crash_neighbours" if request.chat == 12 else "ok"
    done = await ran(**at(three), concurrency=4)
    assert done.error is None
    assert len(done.ids) == len(set(done.ids)) == 90
    assert not [result for result in done.results if result.failure]
    paused = done.of(EndpointPaused)
    assert [(e.endpoint, e.others_up) for e in paused if isinstance(e, EndpointPaused)] == [
        (f"{fastest.url}/v1", True)
    ]
    assert done.summary is not None
    rows = {row.url: row.answered for row in done.summary.endpoints}
    assert sum(rows.values()) == 90
    assert 0 < rows[f"{fastest.url}/v1"] <= 12


async def test_an_endpoint_that_comes_back_gets_images_again(photos: Photos, three: list[Endpoint]) -> None:
    """An endpoint that is down for a moment gets images again afterwards."""
    photos(150)
    returning = three[2]
    returning.script = lambda request: "down" if request.chat == 5 else "ok"
    for other in three[:2]:
        other.hold_until(lambda: len(returning.questions) > 10, after=10)
    done = await ran(**at(three), concurrency=2, on_event=back(returning))
    assert len(done.ids) == 150
    assert not [result for result in done.results if result.failure]
    assert done.of(EndpointResumed)
    assert len(returning.questions) > 10


async def test_an_endpoint_that_is_down_at_the_start_joins_later(
    photos: Photos, three: list[Endpoint]
) -> None:
    """The run begins with the endpoints that are up, and another one gets images once it is up."""
    photos(150)
    late = three[0]
    late.down()
    for other in three[1:]:
        other.hold_until(lambda: late.questions, after=20)
    run = asyncio.create_task(ran(**at(three), concurrency=2, give_up_after=0.05))
    await asyncio.to_thread(until, lambda: bool(three[1].questions))
    await asyncio.to_thread(late.up)
    done = await run
    assert done.error is None
    assert len(done.ids) == 150
    assert late.questions


async def test_the_note_about_a_dead_endpoint_has_the_reason(photos: Photos, endpoint: Endpoint) -> None:
    """The note about an endpoint that is down at the start has its reason, and no event pauses the run."""
    photos(2)
    with closed_port() as dead:
        done = await ran(
            backend="vllm", model="tiny-vision", base_url=(endpoint.url, dead), give_up_after=0.05
        )
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    (told,) = [note for note in started.notes if "is down at the start" in note]
    assert "Connection refused" in told
    assert "in time" not in told
    assert all(event.others_up for event in done.events if isinstance(event, EndpointPaused))


async def test_no_endpoint_up_is_unavailable(photos: Photos) -> None:
    """If no endpoint is up the run does not start, and the error names all of them."""
    photos(2)
    with closed_port() as one, closed_port() as other:
        done = await ran(backend="vllm", model="m", base_url=(one, other), give_up_after=0.01)
    assert isinstance(done.error, UnavailableError)
    assert one in str(done.error)
    assert other in str(done.error)


async def test_the_run_ends_if_all_endpoints_die(photos: Photos, three: list[Endpoint]) -> None:
    """When the last endpoint stays down the run ends as unavailable, and the next run does the rest."""
    photos(60)
    for endpoint in three:
        endpoint.script = lambda request: "down" if request.chat == 4 else "ok"
    done = await ran(**at(three), concurrency=2, output="out.jsonl", give_up_after=0.2)
    assert isinstance(done.error, UnavailableError)
    assert not [result for result in done.results if result.failure]
    for endpoint in three:
        endpoint.script = ()
        endpoint.up()
    again = await ran(**at(three), concurrency=2, output="out.jsonl")
    assert again.error is None
    assert sorted([*done.ids, *again.ids]) == sorted(f"photos/p{n:04}.jpg" for n in range(60))


async def test_an_endpoint_without_the_model_ends_the_run(photos: Photos) -> None:
    """An endpoint without the model ends the run before the first image, and the error names it."""
    photos(2)
    with Endpoint() as good, Endpoint(models={"other": Model()}) as bad:
        done = await ran(**at([good, bad]))
        assert isinstance(done.error, FatalBackendError)
        assert bad.url in str(done.error)
        assert not good.questions


async def test_endpoints_with_different_models_need_a_model_name(photos: Photos) -> None:
    """Endpoints that would choose different models end the run, and the error names --model."""
    photos(2)
    with Endpoint(models={"a": Model()}) as one, Endpoint(models={"b": Model()}) as other:
        done = await ran(backend="ollama", base_url=(one.url, other.url))
    assert isinstance(done.error, ConfigError)
    assert "--model" in str(done.error)


async def test_an_endpoint_that_refuses_the_key_pauses(photos: Photos, three: list[Endpoint]) -> None:
    """If one endpoint starts to refuse the key, it pauses, and the others answer all images."""
    photos(60)
    three[2].script = lambda request: "401" if (request.chat or 0) >= 5 else "ok"
    done = await ran(**at(three), concurrency=2)
    assert done.error is None
    assert len(done.ids) == 60
    assert not [result for result in done.results if result.failure]
    paused = [event for event in done.events if isinstance(event, EndpointPaused)]
    assert {(event.endpoint, event.others_up) for event in paused} == {(f"{three[2].url}/v1", True)}


async def test_changes_to_a_file_of_urls_are_followed(
    photos: Photos, three: list[Endpoint], tmp_path: Path
) -> None:
    """A URL added to the file during a run gets images, and a URL removed from it gets no more."""
    photos(200)
    one, two, three_ = three
    file = tmp_path / "endpoints.txt"
    file.write_text(f"# the first\n{one.url}\n\n{two.url}\n")
    for each in (one, two):
        each.hold_until(lambda: three_.questions, after=20)
    run = asyncio.create_task(ran(backend="vllm", model="tiny-vision", base_url=str(file), concurrency=1))
    await asyncio.to_thread(until, lambda: len(two.questions) >= 3)
    file.write_text(f"{one.url}\n{three_.url}\n")
    done = await run
    assert done.error is None
    assert len(set(done.ids)) == 200
    assert three_.questions
    told = [event.message for event in done.events if isinstance(event, Notice)]
    assert any(f"{two.url}/v1 gets no more images" in message for message in told)
    assert any(f"{three_.url}/v1 gets images from now on" in message for message in told)
    assert max(int(q.chat or 0) for q in two.questions) < 100


async def test_the_first_event_names_all_endpoints(photos: Photos, three: list[Endpoint]) -> None:
    """RunStarted names every endpoint."""
    photos(1)
    done = await ran(**at(three))
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    assert {started.endpoint.url, *started.others} == {f"{e.url}/v1" for e in three}


@pytest.mark.parametrize(("first", "told"), [("", 1), ("https://ollama.example:443", 0)])
async def test_the_start_has_the_notes_of_the_other_endpoints(photos: Photos, first: str, told: int) -> None:
    """That images leave the machine at the second and third endpoint is noted once, or with the first."""
    photos(1)
    with ExitStack() as stack:
        remotes = [first, *["https://ollama.example:443"] * 2]
        models = [{"tiny-vision": Model(remote=remote)} for remote in remotes]
        endpoints = [stack.enter_context(Endpoint(models=each)) for each in models]
        done = await ran(**at(endpoints, "ollama"))
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    leaving = [note for note in started.notes if "images leave this machine" in note]
    assert len(leaving) == told
    assert len([note for note in started.endpoint.notes if "images leave" in note]) == 1 - told


@pytest.mark.parametrize(("digests", "told"), [("ab", 1), ("aa", 0)])
async def test_weights_that_differ_are_noted_at_the_start(photos: Photos, digests: str, told: int) -> None:
    """Models of one name with other weights answer together, and a note says so."""
    photos(1)
    with ExitStack() as stack:
        models = [{"tiny-vision": Model(digest=digest * 64)} for digest in digests]
        endpoints = [stack.enter_context(Endpoint(models=each)) for each in models]
        done = await ran(**at(endpoints, "ollama"))
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    assert list(started.notes) == ["the weights of tiny-vision are not the same at all endpoints"] * told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "names no URL"),
        ("gpu1:8000\n", "line 1"),
        (b"caf\xe9", "not UTF-8"),
        ("# only\n", "names no URL"),
    ],
)
def test_a_file_without_a_valid_url_is_an_error(tmp_path: Path, content: str | bytes, told: str) -> None:
    """A file without a URL, or with an invalid line, is a ConfigError that says what is wrong."""
    file = tmp_path / "endpoints.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=told):
        EndpointUrls([str(file)]).read()


def test_a_url_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    """A URL that is given and also in the file is one endpoint."""
    file = tmp_path / "endpoints.txt"
    file.write_text("http://a:1\nhttp://b:1\n")
    assert EndpointUrls(["http://b:1", str(file)]).read() == ("http://b:1", "http://a:1")


async def test_a_queue_at_the_endpoint_lowers_the_limit(photos: Photos) -> None:
    """Requests that wait at vLLM, as its /metrics report, lower the limit before enough answers do."""
    photos(12)
    with Endpoint(slots=2, delay=0.2, speaks=("openai",)) as endpoint:
        done = await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision")
    (started,) = done.of(RunStarted)
    measured = [event for event in done.events if isinstance(event, QueueMeasured)]
    assert any(event.waiting > 0 and event.running == 2 for event in measured)
    assert {event.endpoint for event in measured} == {f"{endpoint.url}/v1"}
    limits = [event.concurrency for event in done.events if isinstance(event, ConcurrencyChanged)]
    assert isinstance(started, RunStarted)
    assert limits
    assert max(limits) < started.concurrency


async def test_an_endpoint_that_is_slow_to_answer_is_waited_for(photos: Photos, endpoint: Endpoint) -> None:
    """A run waits a moment for a slow endpoint although another one is ready."""
    photos(1)
    with Endpoint(routes={"/v1/models": "slow:0.3"}) as slow:
        done = await ran(**at([endpoint, slow]))
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    assert started.notes == ()


async def test_a_dead_endpoint_does_not_hold_up_the_start(
    photos: Photos, three: list[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run begins with the endpoints that are up, long before the patience with a dead one ends."""
    monkeypatch.setattr(preflight, "STRAGGLERS_S", 1.0)
    photos(10)
    three[0].down()
    done = await asyncio.wait_for(ran(**at(three), give_up_after=3600), 240)
    assert done.error is None
    assert len(done.ids) == 10
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    assert any(f"{three[0].url}" in note for note in started.notes)


async def test_a_late_endpoint_with_several_models_gets_no_images(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that comes up late with several models gets no images; the other one answers them all."""
    monkeypatch.setattr(preflight, "STRAGGLERS_S", 1.0)
    photos(30)
    one_model, two_models = {"a": Model(vision=True)}, {"a": Model(vision=True), "b": Model(vision=True)}
    with Endpoint(models=one_model, delay=0.05) as one, Endpoint(models=two_models) as late:
        late.down()
        one.script = lambda request: late.up() or "ok" if request.chat == 3 else "ok"
        options: dict[str, Any] = {"backend": "vllm", "base_url": (one.url, late.url), "give_up_after": 600}
        done = await ran(**options, concurrency=2)
    assert done.error is None
    assert len(done.ids) == 30
    assert all(result.ok for result in done.results)
    assert not late.questions
