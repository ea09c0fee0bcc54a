"""Sessions: one session answers many questions at once, survives lost endpoints, and loses no call."""

import asyncio
import io
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import waiting
from backend_contract import closed_port
from endpoint import Endpoint, Model
from loop_clock import LoopClock
from PIL import Image
from running import briefly, ran

import vlmbatch
from vlmbatch.cache import FILE
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, FatalBackendError, SessionClosed, UnavailableError
from vlmbatch.events import Event, Notice
from vlmbatch.pipeline import session as module
from vlmbatch.pipeline.session import Session
from vlmbatch.sessions import open_session

Photos = Callable[..., Path]
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}


def at(endpoint: Endpoint, **options: object) -> dict[str, Any]:
    """Options of a session at this endpoint."""
    return {"backend": "vllm", "base_url": endpoint.url, "model": "tiny-vision", **options}


def opened(endpoint: Endpoint, **options: Any) -> Any:
    """A session at this endpoint that sleeps a hundredth of the time in outages and recoveries."""
    config = RunConfig.of_session(**at(endpoint, **options))
    return module.opened(config, lambda event: None, sleep=briefly)


async def until(holds: Callable[[], object]) -> None:
    """Let the session run until this holds."""
    for _ in range(60_000):
        if holds():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("the condition did not become true in two minutes")


def encoded(colour: tuple[int, int, int]) -> bytes:
    """A small JPEG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, "JPEG")
    return out.getvalue()


async def test_paths_bytes_and_pil_images_are_answered(photos: Photos, endpoint: Endpoint) -> None:
    """A path, bytes and a PIL image are all answered; only a path gives an id and the facts of a file."""
    path = photos(1) / "p0000.jpg"
    async with open_session(**at(endpoint)) as session:
        question = session.question(prompt="What is it?")
        by_path = await session.answer(path, question)
        by_bytes = await session.answer(encoded((200, 0, 0)), question, image_id="upload 7")
        by_image = await session.answer(Image.new("RGBA", (40, 30), (0, 0, 200, 255)), question)
    assert by_path.ok
    assert (by_path.id, by_path.image.bytes) == (str(path), path.stat().st_size)
    assert by_bytes.ok
    assert (by_bytes.id, by_bytes.image.width, by_bytes.image.mtime) == ("upload 7", 64, None)
    assert by_image.ok
    assert (by_image.id, by_image.image.width) == ("(in memory)", 40)
    assert {len(request.pictures) for request in endpoint.questions} == {1}


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "HSV"]
)
async def test_pil_images_of_every_mode_are_sent_as_they_look(endpoint: Endpoint, mode: str) -> None:
    """A white PIL image of any mode arrives white."""
    image = Image.new("F", (64, 48)) if mode == "F" else Image.new("RGB", (64, 48), "white").convert("L")
    if mode in ("F", "I", "I;16"):
        image = Image.new(mode, (64, 48), 1.0 if mode == "F" else 65535)
    elif mode in ("HSV", "CMYK", "YCbCr"):
        image = image.convert("RGB").convert(mode)
    elif mode != "L":
        image = image.convert(mode)
    async with open_session(**at(endpoint)) as session:
        result = await session.answer(image, session.question())
    assert result.ok, result.failure
    (picture,) = endpoint.questions[0].pictures
    with Image.open(io.BytesIO(picture.data)) as sent:
        assert sent.convert("RGB").getpixel((30, 20)) == (255, 255, 255)


async def test_a_pil_image_is_turned_as_its_file_would_be(endpoint: Endpoint, tmp_path: Path) -> None:
    """A photo taken upright is sent upright, whether a path or a PIL image of it is given."""
    photo = Image.new("RGB", (64, 48), "red")
    exif = photo.getexif()
    exif[274] = 6  # turn by 90 degrees
    photo.save(tmp_path / "p.jpg", exif=exif)
    async with open_session(**at(endpoint)) as session:
        question = session.question()
        with Image.open(tmp_path / "p.jpg") as opened_photo:
            results = [await session.answer(image, question) for image in (tmp_path / "p.jpg", opened_photo)]
    assert [(r.image.sent_width, r.image.sent_height) for r in results] == [(48, 64)] * 2


async def test_a_pil_image_whose_file_is_broken_is_a_failure(endpoint: Endpoint) -> None:
    """Pillow reads a file late: an image that turns out to be cut is a bad image."""
    noise = Image.effect_noise((200, 200), 50)
    out = io.BytesIO()
    noise.save(out, "PNG")
    async with open_session(**at(endpoint)) as session:
        cut = Image.open(io.BytesIO(out.getvalue()[: len(out.getvalue()) // 2]))
        result = await session.answer(cut, session.question())
    assert result.failure is not None
    assert result.failure.kind == "bad_image"


async def test_several_images_in_one_question(endpoint: Endpoint) -> None:
    """Two images go out in one request, in their order; the record has the facts of both."""
    red, blue = encoded((255, 0, 0)), Image.new("RGB", (100, 50), (0, 0, 255))
    async with open_session(**at(endpoint)) as session:
        result = await session.answer([red, blue], session.question(prompt="Compare them"))
        again = await session.answer([red, blue], session.question(prompt="Compare them"))
        swapped = await session.answer([blue, red], session.question(prompt="Compare them"))
    first, second = endpoint.questions
    assert len(first.pictures) == 2
    assert [picture.sha256 for picture in second.pictures] == [p.sha256 for p in first.pictures][::-1]
    record = result.to_record()
    assert [facts["width"] for facts in record["images"]] == [64, 100]
    assert record["image"] == record["images"][0]
    assert (again.is_known, swapped.is_known) == (True, False)


async def test_a_broken_image_is_a_failed_result(endpoint: Endpoint, tmp_path: Path) -> None:
    """Bytes that are no image, and a path without a file, are failed results; other calls are answered."""
    async with open_session(**at(endpoint)) as session:
        question = session.question()
        broken = await session.answer(b"no image", question)
        missing = await session.answer(tmp_path / "none.jpg", question)
        good = await session.answer(encoded((9, 9, 9)), question)
    assert broken.failure is not None
    assert broken.failure.kind == "bad_image"
    assert missing.failure is not None
    assert missing.failure.kind == "vanished"
    assert good.ok


async def test_one_session_answers_different_questions(endpoint: Endpoint) -> None:
    """Each call sends its own question, and an answer is reused only for the same question."""
    photo = encoded((1, 2, 3))
    endpoint.answer = lambda request: '{"b": "x", "a": "y"}'
    async with open_session(**at(endpoint, system="Be brief.")) as session:
        colour = session.question(prompt="Which colour?", max_tokens=7)
        form = session.question(prompt="Which colour?", schema=SCHEMA)
        results = [await session.answer(photo, question) for question in (colour, form, colour)]
    assert [result.is_known for result in results] == [False, False, True]
    assert results[0].completion is not None
    assert results[1].completion is not None
    assert (results[0].completion.data, results[1].completion.data) == (None, {"b": "x", "a": "y"})
    sent = [request.body for request in endpoint.questions]
    assert [body["max_tokens"] for body in sent] == [7, 512]
    assert ["response_format" in body for body in sent] == [False, True]
    assert all(body["messages"][0]["content"] == "Be brief." for body in sent)
    assert colour.run != form.run


async def test_a_fallback_gets_the_question_of_the_call(endpoint: Endpoint) -> None:
    """A fallback that answers a refused image gets the prompt and the options of the call."""
    with Endpoint() as spare:
        endpoint.script = lambda request: "400"
        options = at(endpoint, fallback=(f"ollama:tiny-vision@{spare.url}",), fallback_on="rejected")
        async with open_session(**options) as session:
            question = session.question(prompt="Which animal?", max_tokens=9)
            result = await session.answer(encoded((5, 5, 5)), question)
        (request,) = spare.questions
    assert result.ok
    assert result.fallback is not None
    assert request.body["messages"][-1]["content"] == "Which animal?"
    assert request.body["options"]["num_predict"] == 9


@pytest.mark.parametrize(
    ("model", "size", "told"),
    [("mystery", "auto", True), ("qwen2.5vl:7b", "auto", False), ("mystery", "512", False)],
)
async def test_an_unknown_count_of_tokens_is_told(model: str, size: str, told: bool) -> None:
    """With --max-size auto, and only then, a question reports a model whose count of tokens is unknown."""
    events: list[Event] = []
    with Endpoint(models={model: Model()}) as endpoint:
        config = RunConfig.of_session(backend="vllm", base_url=endpoint.url, max_size=size)
        async with module.opened(config, events.append) as session:
            session.question()
    messages = [event.message for event in events if isinstance(event, Notice)]
    assert any("does not know how mystery counts image tokens" in message for message in messages) is told


async def test_a_session_has_the_fingerprint_of_a_run(photos: Photos, endpoint: Endpoint) -> None:
    """The same settings have the same fingerprint in a run and in a session."""
    photos(1)
    done = await ran(**at(endpoint, prompt="Which colour?", max_size=512, temperature=0.5))
    async with open_session(**at(endpoint)) as session:
        question = session.question(prompt="Which colour?", max_size=512, temperature=0.5)
        result = await session.answer("photos/p0000.jpg", question)
    assert result.run == question.run == done.results[0].run


async def test_reuse_can_be_switched_off(endpoint: Endpoint, tmp_path: Path) -> None:
    """The same question is sent once; a call with reuse=False sends it again, even with a cache."""
    photo, cache = encoded((7, 7, 7)), str(tmp_path / "cache")
    async with open_session(**at(endpoint, cache=cache)) as session:
        question = session.question()
        first, second = await asyncio.gather(*(session.answer(photo, question) for _ in range(2)))
        fresh = await session.answer(photo, question, reuse=False)
    assert sorted(result.is_known for result in (first, second)) == [False, True]
    assert not fresh.is_known
    assert len(endpoint.questions) == 2
    async with open_session(**at(endpoint, cache=cache)) as session:
        assert (await session.answer(photo, session.question())).cached
        assert not (await session.answer(photo, session.question(), reuse=False)).cached
    assert len(endpoint.questions) == 3


async def test_a_cache_that_fails_is_told_of_and_costs_no_answer(endpoint: Endpoint, tmp_path: Path) -> None:
    """A cache that is damaged while a session is open is reported once, and the calls are answered."""
    told: list[Event] = []
    config = RunConfig.of_session(**at(endpoint, cache=str(tmp_path / "cache")))
    async with module.opened(config, told.append) as session:
        with closing(sqlite3.connect(tmp_path / "cache" / FILE)) as other:
            other.execute("DROP TABLE answers")
        question = session.question()
        results = [await session.answer(encoded((n, n, n)), question) for n in range(3)]
    assert [result.ok for result in results] == [True] * 3
    notices = [event.message for event in told if isinstance(event, Notice)]
    assert len([message for message in notices if "continues without it" in message]) == 1


async def test_a_hundred_callers_lose_nothing_when_the_endpoint_restarts(endpoint: Endpoint) -> None:
    """All of a hundred calls at once get their answer although the endpoint crashes and comes back."""
    endpoint.script = lambda request: "crash_neighbours:0.2" if request.chat == 30 else "ok"
    photos = [encoded((n, 255 - n, 2 * n)) for n in range(100)]
    async with opened(endpoint, concurrency=8) as session:
        question = session.question()
        calls = [session.answer(photo, question, image_id=str(n)) for n, photo in enumerate(photos)]
        results = await asyncio.gather(*calls)
        assert session.state.waiting == 0
        assert session.state.endpoints[0].in_flight == 0
    assert [result.id for result in results] == [str(n) for n in range(100)]
    assert [result.failure for result in results if not result.ok] == []
    assert endpoint.crashes == 1


async def test_cancelling_a_call_frees_its_slot_and_its_turn(endpoint: Endpoint) -> None:
    """If a call in flight is cancelled, a call with the same question and one that needs its slot go on."""
    endpoint.script = lambda request: "held" if request.chat == 0 else "ok"
    photo = encoded((3, 3, 3))
    async with open_session(**at(endpoint, concurrency=1)) as session:
        question = session.question()
        first = asyncio.create_task(session.answer(photo, question))
        await until(lambda: endpoint.questions)
        second = asyncio.create_task(session.answer(photo, question))  # waits for the answer of the first
        third = asyncio.create_task(session.answer(encoded((4, 4, 4)), question))  # waits for its slot
        await asyncio.sleep(0.05)
        first.cancel()
        results = await asyncio.wait_for(asyncio.gather(second, third), 120)
        with pytest.raises(asyncio.CancelledError):
            await first
    assert [result.ok for result in results] == [True, True]
    assert not any(result.is_known for result in results)


async def test_a_call_that_is_cancelled_while_its_image_is_read_leaves_its_question(
    endpoint: Endpoint, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that reads for a cancelled call takes its question; the question is free afterwards."""
    photo, reads, go_on = photos(1) / "p0000.jpg", threading.Event(), threading.Event()
    real = os.read

    def slow_read(fd: int, size: int) -> bytes:
        if threading.current_thread().name.startswith("vlmbatch-prepare") and not go_on.is_set():
            reads.set()
            go_on.wait(120)
        return real(fd, size)

    async with open_session(**at(endpoint)) as session:
        question = session.question()
        monkeypatch.setattr(os, "read", slow_read)
        first = asyncio.create_task(session.answer(photo, question))
        await until(reads.is_set)
        first.cancel()
        await asyncio.wait((first,))
        go_on.set()
        assert (await asyncio.wait_for(session.answer(photo, question), 120)).ok


async def test_a_deadline_ends_a_call_with_a_failure(endpoint: Endpoint) -> None:
    """A call that passes its deadline is a retryable timeout, and its slot is free again."""
    clock = LoopClock()
    endpoint.script = lambda request: "held" if request.chat == 0 else "ok"
    async with open_session(**at(endpoint, concurrency=1)) as session:
        question = session.question()
        call = asyncio.create_task(session.answer(encoded((3, 3, 3)), question, deadline_s=100))
        await until(lambda: endpoint.questions)
        clock.skip(100)
        late = await call
        good = await session.answer(encoded((4, 4, 4)), question, deadline_s=100)
    assert late.failure is not None
    assert (late.failure.kind, late.failure.retryable) == ("timeout", True)
    assert "no answer within 100 s" in late.failure.message
    assert good.ok


async def test_a_session_that_is_not_open_says_how_to_open_it() -> None:
    """If a session is not open, await and its methods raise an error that shows how to open it."""
    context: Any = open_session(model="tiny-vision")
    told = r"; write: with open_session\(...\) as session, or .*: async with open_session\(...\) as session$"
    with pytest.raises(
        TypeError, match=r"cannot be awaited; write: async with open_session\(...\) as session$"
    ):
        await context
    for name in ("question", "answer", "answer_many", "state", "close"):
        with pytest.raises(
            AttributeError, match=rf"^this session is not open, so {name} cannot be used yet{told}"
        ):
            getattr(context, name)
    for name in ("answers", "_living"):
        with pytest.raises(AttributeError, match=rf"^'SessionContext' object has no attribute '{name}'$"):
            getattr(context, name)


@pytest.mark.parametrize("number", [0, -5, True, 1.5, "3", None])
def test_a_wrong_number_of_waiting_calls_is_refused(number: Any) -> None:
    """`max_waiting` is a whole number of at least 1; any other value is refused before the session opens."""
    told = f"^max_waiting must be a whole number of at least 1, not {number!r}$"
    with pytest.raises(ConfigError, match=told):
        open_session(max_waiting=number)


async def test_waiting_calls_are_bounded(endpoint: Endpoint) -> None:
    """A call beyond `max_waiting` waiting ones raises Busy at once, and all other calls are answered."""
    endpoint.script = lambda request: "held"
    async with open_session(**at(endpoint, concurrency=1), max_waiting=5) as session:
        question = session.question()
        room = session.most_at_once
        calls = []
        for n in range(room + 5):
            calls.append(asyncio.create_task(session.answer(encoded((n, n, n)), question)))
            await asyncio.sleep(0)
        await until(lambda: session.state.waiting == 5)
        with pytest.raises(vlmbatch.Busy, match="5 calls wait"):
            await session.answer(encoded((99, 0, 0)), question)
        endpoint.released = True
        results = await asyncio.gather(*calls)
    assert all(result.ok for result in results)


async def test_a_session_recovers_after_the_patience(endpoint: Endpoint) -> None:
    """Calls raise UnavailableError if the endpoint stays down, and are answered once it is up again."""
    async with opened(endpoint, give_up_after=5) as session:
        question = session.question()
        assert (await session.answer(encoded((1, 1, 1)), question)).ok
        endpoint.down()
        with pytest.raises(UnavailableError):
            await session.answer(encoded((2, 2, 2)), question)
        assert not session.state.up
        assert session.state.endpoints[0].reason
        endpoint.up()
        await until(lambda: session.state.up)
        assert (await session.answer(encoded((3, 3, 3)), question)).ok


async def test_a_session_recovers_from_a_fatal_error(endpoint: Endpoint) -> None:
    """While the endpoint refuses the key calls raise; once it accepts the key again, calls are answered."""
    async with opened(endpoint, canary=False) as session:
        question = session.question()
        endpoint.routes = {"/v1/chat/completions": "401"}
        with pytest.raises(FatalBackendError):
            await session.answer(encoded((1, 1, 1)), question)
        assert not session.state.up
        endpoint.routes = {}
        await until(lambda: session.state.up)
        assert (await session.answer(encoded((2, 2, 2)), question)).ok


async def test_equal_failures_do_not_end_a_session(endpoint: Endpoint) -> None:
    """Fifteen equal failures, which would end a run, do not end a session."""
    endpoint.script = lambda request: "400"
    async with open_session(**at(endpoint)) as session:
        question = session.question()
        results = [await session.answer(encoded((n, 0, 0)), question) for n in range(15)]
        assert [result.ok for result in results] == [False] * 15
        endpoint.script = ()
        assert (await session.answer(encoded((99, 0, 0)), question)).ok


async def test_a_session_opens_while_its_endpoint_is_down(endpoint: Endpoint) -> None:
    """With wait=False a session opens at once, shows why the endpoint is down, and answers once it is up."""
    endpoint.down()
    config = RunConfig.of_session(**at(endpoint))
    async with module.opened(config, lambda event: None, sleep=briefly, wait=False) as session:
        (state,) = session.state.endpoints
        assert (state.up, state.in_flight) == (False, 0)
        assert state.reason
        call = asyncio.create_task(session.answer(encoded((1, 1, 1)), session.question()))
        await asyncio.sleep(0.05)
        assert not call.done()
        endpoint.up()
        assert (await asyncio.wait_for(call, 120)).ok
        assert session.state.up


async def test_a_session_without_an_endpoint_does_not_open() -> None:
    """If no endpoint is up, open_session raises UnavailableError like a run."""
    with closed_port() as url, pytest.raises(UnavailableError, match="no connection"):
        async with open_session(backend="vllm", base_url=url, model="m", give_up_after=0):
            raise AssertionError("opened")


async def test_a_question_needs_a_known_model(endpoint: Endpoint) -> None:
    """A question raises UnavailableError if neither the endpoint nor an option has named the model."""
    endpoint.down()
    options = {"backend": "vllm", "base_url": endpoint.url}
    async with open_session(**options, wait=False) as session:
        with pytest.raises(UnavailableError, match="--model"):
            session.question()


async def test_the_model_is_known_once_the_endpoint_is_up() -> None:
    """A session that opens while its endpoint is down asks the model that the endpoint turns out to have."""
    with Endpoint(models={"only-vision": Model()}) as endpoint:
        endpoint.down()
        config = RunConfig.of_session(backend="vllm", base_url=endpoint.url)
        async with module.opened(config, lambda event: None, sleep=briefly, wait=False) as session:
            endpoint.up()
            await until(lambda: session.state.up)
            question = session.question()
            result = await session.answer(encoded((1, 1, 1)), question)
    assert result.ok
    assert question.endpoint.model == result.endpoint.model == "only-vision"


async def test_a_mistake_that_shows_late_is_raised_by_calls(endpoint: Endpoint, tmp_path: Path) -> None:
    """A price file without the model of a late endpoint is an error of the calls, not of the session."""
    (tmp_path / "prices.json").write_text("{}")
    endpoint.down()
    config = RunConfig.of_session(**at(endpoint, prices=str(tmp_path / "prices.json")))
    async with module.opened(config, lambda event: None, sleep=briefly, wait=False) as session:
        question = session.question()
        endpoint.up()
        with pytest.raises(FatalBackendError, match="no usable price for tiny-vision"):
            await asyncio.wait_for(session.answer(encoded((1, 1, 1)), question), 120)
        assert "no usable price for tiny-vision" in str(session.state.endpoints[0].reason)


async def test_closing_waits_for_requests_in_flight(endpoint: Endpoint) -> None:
    """A request in flight is answered before the close; waiting and later calls raise SessionClosed."""
    endpoint.script = lambda request: "held" if request.chat == 0 else "ok"
    async with open_session(**at(endpoint, concurrency=1)) as session:
        question = session.question()
        first = asyncio.create_task(session.answer(encoded((1, 1, 1)), question))
        await until(lambda: endpoint.questions)
        second = asyncio.create_task(session.answer(encoded((2, 2, 2)), question))
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_later(0.2, setattr, endpoint, "released", True)
    assert (await first).ok
    with pytest.raises(SessionClosed):
        await second
    with pytest.raises(SessionClosed):
        await session.answer(encoded((3, 3, 3)), question)
    assert len(endpoint.questions) == 1


async def test_closing_waits_no_longer_than_drain(endpoint: Endpoint) -> None:
    """A call that is still in flight `drain` seconds after the close raises SessionClosed."""
    endpoint.script = lambda request: "held"
    clock = LoopClock()
    async with open_session(**at(endpoint, drain=100)) as session:
        call = asyncio.create_task(session.answer(encoded((1, 1, 1)), session.question()))
        await until(lambda: endpoint.questions)
        asyncio.get_running_loop().call_later(0.05, clock.skip, 100)  # the close waits by then, or begins
    with pytest.raises(SessionClosed):
        await call


async def test_an_interrupt_does_not_wait_for_what_is_in_flight(endpoint: Endpoint) -> None:
    """A task that is cancelled inside its session leaves the session at once, whatever `drain` is."""
    endpoint.script = lambda request: "held"
    calls: list[asyncio.Task[Any]] = []

    async def serve() -> None:
        async with open_session(**at(endpoint, drain=3600)) as session:
            calls.append(asyncio.create_task(session.answer(encoded((1, 1, 1)), session.question())))
            await asyncio.Event().wait()

    serving = asyncio.create_task(serve())
    await until(lambda: endpoint.questions)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(serving, 120)
    with pytest.raises(SessionClosed):
        await calls[0]


@pytest.mark.parametrize("form", ["list", "generator", "async"])
async def test_answer_many_returns_results_as_they_are_ready(endpoint: Endpoint, form: str) -> None:
    """A slow answer delays no other one, and answer_many takes pairs only as it has room for them."""
    endpoint.script = lambda request: "held" if request.chat == 0 else "ok"
    photos = [encoded((n, n, 0)) for n in range(200)]
    taken = 0
    async with open_session(**at(endpoint, concurrency=2)) as session:
        question = session.question()

        def pairs() -> Iterator[Any]:
            nonlocal taken
            for photo in photos:
                taken += 1
                yield photo, question

        async def pairs_later() -> AsyncIterator[Any]:
            for pair in pairs():
                yield pair

        asked = {"list": [(p, question) for p in photos], "generator": pairs(), "async": pairs_later()}[form]
        results = []
        async for result in session.answer_many(asked):
            results.append(result)
            if len(results) == 1:
                assert taken < 100
            endpoint.released = len(results) >= 100
    assert len(results) == 200
    assert all(result.ok for result in results)


async def test_a_call_that_is_cancelled_before_it_begins_waits_no_more(endpoint: Endpoint) -> None:
    """Calls that are cancelled in the moment they are made leave no trace in the state."""
    async with open_session(**at(endpoint)) as session:
        question = session.question()
        calls = [asyncio.create_task(session.answer(encoded((n, 0, 0)), question)) for n in range(20)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert session.state.waiting == 0
        assert (await session.answer(encoded((1, 9, 1)), question)).ok


async def test_many_do_not_make_the_session_busy(endpoint: Endpoint) -> None:
    """While answer_many() has more pairs than there is room for, a single call is not refused."""
    photos = [encoded((n, n, 0)) for n in range(60)]
    async with open_session(**at(endpoint), max_waiting=1) as session:
        question = session.question()
        singles = []
        async for _ in session.answer_many((photo, question) for photo in photos):
            if len(singles) < 10:
                singles.append(await session.answer(encoded((len(singles), 0, 77)), question))
    assert [result.ok for result in singles] == [True] * 10


async def test_leaving_the_loop_ends_the_other_calls(endpoint: Endpoint) -> None:
    """If the caller stops after the first of many results, no request stays in flight."""
    photos = [encoded((n, n, 0)) for n in range(50)]
    async with open_session(**at(endpoint, concurrency=2)) as session:
        question = session.question()
        results = session.answer_many((photo, question) for photo in photos)
        async for result in results:
            assert result.ok
            break
        await results.aclose()
        assert session.state.endpoints[0].in_flight == 0
        assert session.state.waiting == 0
        assert (await session.answer(encoded((1, 9, 1)), question)).ok


async def test_a_long_outage_ends_answer_many(endpoint: Endpoint) -> None:
    """A long outage raises UnavailableError from answer_many, after all results before it."""
    endpoint.script = lambda request: "down" if request.chat == 10 else "ok"
    photos = [encoded((n, n, 0)) for n in range(40)]
    results = []

    async def take(session: Session) -> None:
        question = session.question()
        async for result in session.answer_many((photo, question) for photo in photos):
            results.append(result)

    async with opened(endpoint, give_up_after=5, concurrency=1) as session:
        with pytest.raises(UnavailableError):
            await take(session)
    assert len(results) == 10


def test_threads_share_a_session_without_an_event_loop(endpoint: Endpoint) -> None:
    """Many threads can use the session of a plain `with` at once; its own thread ends with it."""
    before = threading.active_count()
    with open_session(**at(endpoint)) as session:
        question = session.question(prompt="What is it?")
        with ThreadPoolExecutor(8) as threads:
            photos = [encoded((n, 0, n)) for n in range(24)]
            results = list(threads.map(lambda photo: session.answer(photo, question), photos))
        assert all(result.ok for result in results)
        many = list(session.answer_many((encoded((0, n, 0)), question) for n in range(10)))
        assert [result.ok for result in many] == [True] * 10
        assert session.state.up
    waiting.until(lambda: threading.active_count() == before)  # those that prepare pictures end later
    with pytest.raises(SessionClosed):
        session.answer(encoded((1, 1, 1)), question)


def test_a_session_without_an_event_loop_raises_its_error() -> None:
    """A session without an event loop that cannot open raises the error itself in the caller's thread."""
    with (
        closed_port() as url,
        pytest.raises(UnavailableError),
        open_session(backend="vllm", base_url=url, model="m", give_up_after=0),
    ):
        raise AssertionError("opened")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"output": "o.jsonl"}, "output is an option of a run"),
        ({"limit": 3}, "limit is an option of a run"),
        ({"max_cost": 1.0}, "max_cost is an option of a run"),
        ({"modle": "m"}, "did you mean model"),
    ],
)
def test_a_session_refuses_options_of_a_run(options: dict[str, Any], told: str) -> None:
    """An option of a run, or an unknown one, is a ConfigError before a session opens."""
    with pytest.raises(ConfigError, match=told):
        open_session(**options)


async def test_a_question_refuses_options_of_the_session(endpoint: Endpoint) -> None:
    """An option of the session, or an unknown one, is a ConfigError in a question."""
    async with open_session(**at(endpoint)) as session:
        with pytest.raises(ConfigError, match=r"timeout is an option of the session"):
            session.question(timeout=3)
        with pytest.raises(ConfigError, match="did you mean prompt"):
            session.question(promt="What?")


async def test_a_question_can_come_from_files(endpoint: Endpoint, tmp_path: Path) -> None:
    """A prompt file and a schema file are read when the question is made."""
    (tmp_path / "p.txt").write_text("Which colour?\n")
    (tmp_path / "s.json").write_text('{"type": "object"}')
    async with open_session(**at(endpoint, prompt="Describe it.")) as session:
        files = session.question(prompt_file=str(tmp_path / "p.txt"), schema=str(tmp_path / "s.json"))
        typed = session.question(prompt="Which colour?", schema={"type": "object"})
    assert files.run == typed.run
    assert files.request.prompt == "Which colour?"


def test_values_of_another_type_are_refused(endpoint: Endpoint) -> None:
    """A deadline that is no number, and an item that is no pair, raise a TypeError that says what to give."""
    with open_session(base_url=endpoint.url, backend="ollama", model="tiny-vision") as session:
        question = session.question(prompt="hi")
        for wrong in ("3", float("nan")):
            with pytest.raises(TypeError, match="deadline_s takes a number of seconds"):
                session.answer("photos/p0000.jpg", question, deadline_s=wrong)  # type: ignore[arg-type]
        for item in ("photos/p0000.jpg", None, (question,)):
            with pytest.raises(TypeError, match="takes pairs of image and question, not"):
                list(session.answer_many([item]))  # type: ignore[list-item]
        assert repr(question) == f"Question(prompt='hi', model='tiny-vision', run={question.run!r})"
    assert not [request for request in endpoint.questions if request.chat]


def test_results_may_outlive_a_session_without_an_event_loop(endpoint: Endpoint) -> None:
    """A caller that keeps half-read results beyond the session can put them down without an error."""
    with open_session(**at(endpoint)) as session:
        question = session.question()
        results = session.answer_many((encoded((0, n, 0)), question) for n in range(10))
        assert next(results).ok
    results.close()  # type: ignore[attr-defined]  # a generator


def test_the_session_is_public() -> None:
    """The names of sessions are public names of the package."""
    assert {"open_session", "Session", "Question", "Busy", "SessionClosed"} <= set(vlmbatch.__all__)
    assert vlmbatch.Session is Session
    assert vlmbatch.open_session is open_session
