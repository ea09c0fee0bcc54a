"""Ollama's failures, by their number in docs/failures.md."""

from collections.abc import Callable
from pathlib import Path

import pytest
from endpoint import Endpoint, Received
from endpoint.wires import Model
from failing import Failing
from loop_clock import LoopClock

from vlmbatch.errors import FatalBackendError
from vlmbatch.events import ConcurrencyChanged, Notice, RunStarted

Photos = Callable[..., Path]


@pytest.fixture
def failing(photos: Photos, endpoint: Endpoint) -> Failing:
    """Runs over six photos."""
    return Failing(photos, endpoint, "ollama")


async def test_o1_unknown_model(failing: Failing) -> None:
    """A model that does not exist, or is deleted during the run, ends the run."""
    failing.options["model"] = "nope"
    done = await failing.run()
    assert isinstance(done.error, FatalBackendError)
    assert "vlmbatch pull nope" in str(done.error)
    failing.options["model"] = "tiny-vision"
    await failing.ends("404-pull", "model_not_found")


async def test_o2_no_vision(failing: Failing) -> None:
    """A model without vision ends the run before the first image, even if only the canary shows it."""
    failing.options["model"] = "tiny-text"
    done = await failing.run()
    assert isinstance(done.error, FatalBackendError)
    assert done.error.kind == "no_vision"
    failing.options["model"] = "tiny-vision"
    failing.endpoint.blind = True
    done = await failing.run()
    assert isinstance(done.error, FatalBackendError)
    assert (done.error.kind, done.results, failing.endpoint.questions) == ("no_vision", [], [])


async def test_o3_runner_stopped(failing: Failing) -> None:
    """A runner that dies once costs one attempt; an image at which it always dies fails as a crash."""
    await failing.passes("runner_stopped", attempts=2)
    failing.endpoint.requests.clear()
    await failing.fails_alone("runner_stopped", "crash", requests=2)


async def test_o4_thin_pictures_are_padded(failing: Failing) -> None:
    """No picture that is sent has a side below 32 pixels or a ratio above 100."""
    from PIL import Image

    Image.new("RGB", (2000, 8)).save("photos/thin.jpg")
    Image.new("RGB", (3, 900)).save("photos/tall.png")
    await failing.run()
    for question in failing.endpoint.questions:
        for picture in question.pictures:
            assert min(picture.width, picture.height) >= 32
            assert max(picture.width, picture.height) <= 100 * min(picture.width, picture.height)


async def test_o5_failed_load(failing: Failing) -> None:
    """An engine that dies while it loads is an outage: first a pause, then an unavailable endpoint."""
    await failing.pauses("load_failed")
    await failing.gives_up("load_failed")


async def test_o6_unexpected_eof(failing: Failing) -> None:
    """A generation that breaks off is retried."""
    await failing.passes("unexpected_eof", attempts=2)


async def test_o8_busy(failing: Failing) -> None:
    """A single 503 delays its image, costs no attempt, and halves the adaptive limit."""
    failing.endpoint.script = ["ok", "503-busy"]
    done = await failing.run(concurrency=None)
    assert [r.attempts for r in done.results] == [1] * 6
    started = next(e for e in done.events if isinstance(e, RunStarted))
    changes = [e.concurrency for e in done.events if isinstance(e, ConcurrencyChanged)]
    assert changes[0] == started.concurrency // 2


async def test_o9_queue(photos: Photos) -> None:
    """Requests that only queue at a serial server do not reach their timeout."""
    clock = LoopClock()

    def answer(request: Received) -> str:
        clock.pass_soon(20)
        return "A cat."

    with Endpoint(slots=1, answer=answer) as endpoint:
        endpoint.hold_until(lambda: endpoint.open_questions == 6)
        done = await Failing(photos, endpoint, "ollama").run(concurrency=6, timeout=100)
    assert [r.attempts for r in done.results] == [1] * 6


async def test_o10_error_in_the_middle_of_a_stream(failing: Failing) -> None:
    """An error line in a stream under status 200 is an error, and is retried."""
    await failing.passes("ndjson_error_midstream", attempts=2)


async def test_o11_no_end_mark(failing: Failing) -> None:
    """An answer without done is retried with another seed, and fails alone if it never ends."""
    done = await failing.passes("done_false", attempts=2)
    assert any("seed" in w for r in done.results for w in r.warnings)
    failing.endpoint.requests.clear()
    await failing.fails_alone("done_false", "degenerate", requests=3)


async def test_o12_loop_until_the_limit(failing: Failing) -> None:
    """An answer that loops to the token limit is retried at rising temperature; its failure has the text."""
    done = await failing.fails_alone("length_loop", "truncated", requests=3)
    failure = next(r.failure for r in done.results if r.failure)
    assert failure.partial is not None
    assert "cars" in failure.partial
    heat = [q.body["options"]["temperature"] for q in failing.endpoint.questions]
    assert sorted(heat)[-2:] == [0.2, 0.5]


async def test_o13_thoughts_without_an_answer(failing: Failing) -> None:
    """An answer lost in thinking is retried without thinking."""
    done = await failing.passes("empty_thinking", attempts=2)
    assert any("without thinking" in w for r in done.results for w in r.warnings)
    assert [q.body.get("think") for q in failing.endpoint.questions].count(False) == 1


async def test_o14_think_is_never_sent_true(failing: Failing) -> None:
    """No request contains think: true."""
    await failing.run()
    assert not any(q.body.get("think") for q in [*failing.endpoint.canaries, *failing.endpoint.questions])


async def test_o15_context(failing: Failing) -> None:
    """A prompt that does not fit is retried with a smaller picture, for all wordings."""
    for wording in ("context", "context:9", "context:10"):
        failing.endpoint.requests.clear()
        done = await failing.passes(wording, attempts=2)
        assert any("smaller picture" in w for r in done.results for w in r.warnings)


async def test_o16_silent_truncation(failing: Failing) -> None:
    """Every question has `truncate: false`, and an empty answer to half a prompt is retried."""
    await failing.passes("truncated_prompt_200_empty", attempts=2)
    assert {q.body["truncate"] for q in failing.endpoint.questions} == {False}


async def test_o17_undecodable(failing: Failing) -> None:
    """A picture that the engine cannot decode fails alone, with status 400 or 500."""
    for mode in ("nested_json_error", "unknown_format"):
        failing.endpoint.requests.clear()
        await failing.fails_alone(mode, "rejected")


async def test_o18_only_jpeg_is_sent(failing: Failing) -> None:
    """WebP and animated GIF reach the engine as JPEG."""
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save("photos/w.webp")
    Image.new("P", (64, 64)).save("photos/a.gif", save_all=True, append_images=[Image.new("P", (64, 64), 3)])
    done = await failing.run()
    assert len(done.results) == 8
    assert all(p.data[:2] == b"\xff\xd8" for q in failing.endpoint.questions for p in q.pictures)


async def test_o19_bare_base64(failing: Failing) -> None:
    """Pictures are sent as bare base64, not as data URLs, which this endpoint refuses."""
    await failing.run()
    images = [image for q in failing.endpoint.questions for m in q.body["messages"] for image in m["images"]]
    assert len(images) == 6
    assert not any(image.startswith("data:") for image in images)


async def test_o20_cold_load(failing: Failing) -> None:
    """The canary loads a cold model, and may take longer than the timeout of an attempt."""
    clock, answer = LoopClock(), failing.endpoint.answer_canary

    def load_first(request: Received) -> str:
        if len(failing.endpoint.canaries) == 1:
            clock.pass_soon(100).result(timeout=240)
        return answer(request)

    failing.endpoint.answer_canary = load_first
    done = await failing.run(timeout=60)
    assert [r.attempts for r in done.results] == [1] * 6
    assert {q.body["keep_alive"] for q in failing.endpoint.questions} == {"30m"}


async def test_o21_reloads(failing: Failing) -> None:
    """Repeated loads of the model cause one notice, and all questions have the same options."""
    failing.endpoint.script = lambda request: "reload:8"
    done = await failing.run()
    told = [e.message for e in done.events if isinstance(e, Notice) and "loaded again" in e.message]
    assert len(told) == 1
    options = [q.body["options"] for q in failing.endpoint.questions]
    assert all(o == options[0] for o in options)


async def test_o22_one_image(failing: Failing) -> None:
    """Each question has one picture, and a refusal of more than one ends the run."""
    await failing.ends("one_image", "bad_config")
    assert {len(q.pictures) for q in failing.endpoint.questions} == {1}


async def test_o23_bad_option(failing: Failing) -> None:
    """A wrong option, the same for every image, ends the run, with status 400 or 500."""
    for mode in ("bad_format", "bad_option", "bad_schema", "bad_keep_alive"):
        failing.endpoint.requests.clear()
        await failing.ends(mode, "bad_config")


async def test_o25_garbage(failing: Failing) -> None:
    """An answer of one repeated character is retried, and fails alone if it always comes."""
    await failing.passes("bangs", attempts=2)
    failing.endpoint.requests.clear()
    await failing.fails_alone("bangs", "degenerate", requests=3)


async def test_o26_cancelled(failing: Failing) -> None:
    """A request that was cancelled at the server (499) is retried."""
    await failing.passes("499", attempts=2)


async def test_o27_cloud(failing: Failing) -> None:
    """A signed-out cloud ends the run, a failed one is retried; a note says that images leave the machine."""
    for mode in ("cloud_401", "cloud_403"):
        failing.endpoint.requests.clear()
        await failing.ends(mode, "auth")
    failing.endpoint.requests.clear()
    await failing.passes("cloud_502", attempts=2)
    failing.endpoint.models["big-cloud"] = Model(vision=True)
    failing.endpoint.script = ()
    done = await failing.run(model="big-cloud")
    started = next(e for e in done.events if isinstance(e, RunStarted))
    assert any("leave this machine" in note for note in started.endpoint.notes)


async def test_o28_chunk_not_found(failing: Failing) -> None:
    """Images that fail because the engine mixed up its pictures are retried and answered."""
    await failing.passes("chunk_not_found:2")
