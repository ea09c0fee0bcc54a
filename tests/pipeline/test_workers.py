"""Runs over a real endpoint, on both wires: every image has exactly one record."""

import asyncio
import base64
import gc
import io
import os
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Received
from outages import back
from PIL import Image
from running import Ran, briefly, ran

from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.errors import FatalBackendError, UnavailableError
from vlmbatch.events import (
    ConcurrencyChanged,
    EndpointPaused,
    EndpointResumed,
    ImageFinished,
    RetryScheduled,
    RunStarted,
    TotalKnown,
)
from vlmbatch.images import PreparedImage
from vlmbatch.machine import preparers
from vlmbatch.pipeline.session import Session
from vlmbatch.pipeline.task import ImageTask
from vlmbatch.sources.directory import DirectorySource

Photos = Callable[..., Path]
WIRES = ("ollama", "vllm")


@pytest.fixture(params=WIRES)
def asked(request: pytest.FixtureRequest, endpoint: Endpoint) -> dict[str, Any]:
    """Options that select the endpoint over one of the wires."""
    return {"backend": request.param, "base_url": endpoint.url, "model": "tiny-vision"}


async def test_sixty_photos_arrive_resized_and_once(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Each of 60 photos of 1600x1200 reaches the model once, at 1024x768."""
    photos(60, (1600, 1200))
    done = await ran(**asked)
    assert done.ids == [f"photos/p{n:04}.jpg" for n in range(60)]
    assert {(p.width, p.height) for q in endpoint.questions for p in q.pictures} == {(1024, 768)}
    assert len({p.sha256 for q in endpoint.questions for p in q.pictures}) == len(endpoint.questions) == 60
    assert all("size=1024x768" in r.completion.text for r in done.results if r.completion)
    assert done.summary is not None
    assert (done.summary.succeeded, done.summary.failed, done.summary.total) == (60, 0, 60)


async def test_each_record_has_the_answer_about_its_own_image(photos: Photos, asked: dict[str, Any]) -> None:
    """With many requests at once, each record has the answer about its own image."""
    photos(30)
    done = await ran(**asked, concurrency=16)
    for result in done.results:
        assert result.completion is not None
        assert f"bytes={result.image.sent_bytes} " in result.completion.text
    assert len({r.completion.text for r in done.results if r.completion}) == 30


async def test_broken_replies_lose_no_image(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If a fifth of all replies is a 500, 503, reset, cut body, HTML or empty, all images are answered."""
    photos(40)
    faults = ("500", "503-busy", "rst", "shortbody", "html200", "empty")
    script = [faults[n // 5 % len(faults)] if n % 5 == 4 else "ok" for n in range(400)]
    endpoint.script = script
    done = await ran(**asked)
    assert done.error is None
    assert len(done.ids) == len(set(done.ids)) == 40
    assert [r.failure for r in done.results if r.failure] == []


async def test_an_outage_is_a_pause_and_no_failure(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """An outage pauses the run without a failure, and all images are answered afterwards."""
    photos(30)
    endpoint.script = [*["ok"] * 8, "down"]
    done = await ran(**asked, on_event=back(endpoint))
    assert done.error is None
    assert len(done.ids) == len(set(done.ids)) == 30
    assert all(result.ok for result in done.results)
    assert done.of(EndpointPaused)
    assert done.of(EndpointResumed)


async def test_a_lost_endpoint_ends_the_run_and_the_next_goes_on(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If the endpoint stays down, the run is unavailable, no image fails, and the next run does the rest."""
    photos(20)
    endpoint.script = [*["ok"] * 6, "down:9999"]
    first = await ran(**asked, output="out.jsonl", give_up_after=0.3)
    assert isinstance(first.error, UnavailableError)
    assert first.error.exit_code == 4
    assert all(result.ok for result in first.results)
    assert len(first.results) < 20
    endpoint.script = []
    endpoint.up()
    second = await ran(**asked, output="out.jsonl")
    assert second.error is None
    assert sorted(first.ids + second.ids) == [f"photos/p{n:04}.jpg" for n in range(20)]


async def test_an_unreachable_endpoint_at_the_start_records_nothing(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If the port is closed, the run ends as unavailable after its patience, and writes no output."""
    photos(3)
    endpoint.down()
    done = await ran(**asked, output="out.jsonl", give_up_after=0.1)
    assert isinstance(done.error, UnavailableError)
    assert done.results == []
    assert not Path("out.jsonl").exists()


async def test_a_model_that_disappears_pauses_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A 404 for the model in the middle of a run fails no image: the run pauses, then ends with code 4."""
    photos(50)

    def disappears(request: Received) -> str:
        endpoint.canary = mode = "404-model" if len(endpoint.questions) > 5 else "ok"
        return mode

    endpoint.script = disappears
    done = await ran(**asked, give_up_after=0.3)
    assert isinstance(done.error, UnavailableError)
    assert (done.error.exit_code, done.error.kind) == (4, "model_not_found")
    assert "it has answered before" in str(done.error)
    assert all(result.ok for result in done.results)
    assert len(endpoint.questions) < 40


async def test_received_answers_are_written_before_a_run_ends(photos: Photos, endpoint: Endpoint) -> None:
    """When the account has no credit left, every received answer is written: it may have cost money."""
    photos(60)
    endpoint.script = [*["ok"] * 39, *["402"] * 99]
    done = await ran(
        backend="vllm", base_url=endpoint.url, model="tiny-vision", output="o.jsonl", concurrency=16
    )
    assert isinstance(done.error, FatalBackendError)
    assert len(Path("o.jsonl").read_text().splitlines()) == len(done.results) == 39


async def test_held_failures_are_written_when_the_endpoint_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """When the account has no credit left, equal failures from before are written as "
    "failures of their images."""
    photos(10)
    endpoint.script = [*["400"] * 6, *["402"] * 9]  # each image is refused twice
    done = await ran(**asked, output="o.jsonl", concurrency=1)
    assert isinstance(done.error, FatalBackendError)
    assert [result.ok for result in done.results] == [False] * 3
    assert len(Path("o.jsonl").read_text().splitlines()) == 3


async def test_a_bad_image_fails_alone(photos: Photos, asked: dict[str, Any]) -> None:
    """A broken file is a failed record with kind and message, and all other images are answered."""
    folder = photos(5)
    (folder / "p0002.jpg").write_bytes((folder / "p0002.jpg").read_bytes()[:200])
    (folder / "x.jpg").write_text("no image")
    done = await ran(**asked)
    failed = {r.id: r.failure for r in done.results if r.failure}
    assert set(failed) == {"photos/p0002.jpg", "photos/x.jpg"}
    assert {f.kind for f in failed.values()} == {"bad_image"}
    assert all(f.message and not f.retryable for f in failed.values())
    assert done.summary is not None
    assert (done.summary.succeeded, done.summary.failed) == (4, 2)


async def test_a_failure_that_never_passes_is_recorded_after_its_retries(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """An image that always gets 500 fails as retryable after 1 + retries attempts; others are answered."""
    photos(3)
    endpoint.script = lambda received: "500" if received.pictures[0].sha256 == poison else "ok"
    poison = ""
    first = await ran(**asked)
    poison = sent(first, "photos/p0001.jpg")
    again = await ran(**asked, retries=2)
    result = next(r for r in again.results if r.id == "photos/p0001.jpg")
    assert result.failure is not None
    assert (result.failure.kind, result.failure.retryable, result.attempts) == ("server_error", True, 3)
    assert len(again.of(RetryScheduled)) == 2
    assert sorted(r.id for r in again.results if r.ok) == ["photos/p0000.jpg", "photos/p0002.jpg"]


async def test_an_image_that_is_always_busy_does_not_delay_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """An image that always gets 503 fails as busy, while all others are answered."""
    photos(3)
    poison = sent(await ran(**asked), "photos/p0001.jpg")
    endpoint.script = lambda received: "503-busy" if received.pictures[0].sha256 == poison else "ok"
    done = await ran(**asked, retries=0)
    assert done.error is None
    assert [(r.id, r.failure.kind) for r in done.results if r.failure] == [("photos/p0001.jpg", "busy")]


async def test_a_cut_answer_is_retried_and_then_stored_as_partial(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """An answer that hits the token limit three times is a failure with the partial text."""
    photos(1)
    endpoint.script = ["length"] * 9
    [result] = (await ran(**asked)).results
    assert result.failure is not None
    assert (result.failure.kind, result.attempts) == ("truncated", 3)
    assert result.failure.partial
    assert len(result.warnings) == 2
    seeds = [seed_of(q.body) for q in endpoint.questions]
    assert seeds[0] is None
    assert len(set(seeds)) == 3


async def test_a_picture_too_large_for_the_context_is_sent_smaller(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """After a refusal without numbers or a 413, the next picture has half the sides, with a warning."""
    photos(1, (1200, 600))
    endpoint.script = ["context:9", "413"]
    [result] = (await ran(**asked)).results
    assert result.ok
    assert [q.pictures[0].width for q in endpoint.questions] == [1024, 512, 256]
    assert result.image.sent_width == 256
    assert any("smaller picture" in warning for warning in result.warnings)


async def test_no_more_requests_than_slots_are_open(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """--concurrency is the most requests that are open at once, and is reached."""
    photos(12)
    endpoint.hold_until(lambda: endpoint.open_questions == 5)
    await ran(**asked, concurrency=5)
    assert endpoint.most_open_questions == 5


async def test_pictures_do_not_outlive_their_answers(photos: Photos, asked: dict[str, Any]) -> None:
    """Even without garbage collection, no more pictures are in memory than in flight and in preparation."""
    photos(40 + 4 * preparers())
    batch = Batch(RunConfig.of("photos", **asked, concurrency=2), sleep=briefly)
    held = 0
    gc.freeze()  # objects of other tests are not searched
    gc.disable()
    try:
        async for _ in batch:
            held = max(held, sum(type(thing) is PreparedImage for thing in gc.get_objects()))
    finally:
        gc.enable()
    assert 0 < held <= 2 * (2 + preparers())


FAILURES = ("400", "403-empty", "empty", "500", "503-busy", "context", "change refused")


@pytest.mark.parametrize("mode", FAILURES)
async def test_pictures_of_images_that_fail_do_not_outlive_them(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], mode: str
) -> None:
    """Even without garbage collection, a failed image leaves no picture in memory, however it fails."""
    folder = photos(3)
    poison = sent(await ran(**asked), "photos/p0001.jpg")

    def script(request: Received) -> str:
        if request.pictures[0].sha256 != poison:
            return "ok"
        if mode == "context":  # the file for a smaller picture is gone
            (folder / "p0001.jpg").unlink(missing_ok=True)
        if mode == "change refused":
            return "400" if "seed" in str(request.body) else "length"
        return mode

    def pictures() -> int:
        return sum(type(thing) is PreparedImage for thing in gc.get_objects())

    endpoint.script = script
    gc.freeze()  # objects of other tests are not searched
    gc.disable()
    try:
        done = await ran(**asked, retries=1)
        for _ in range(200):  # the thread that prepared the last picture may not have put it down yet
            if (left := pictures()) == 0:
                break
            await asyncio.sleep(0.01)
    finally:
        gc.enable()
    assert [result.id for result in done.results if result.failure] == ["photos/p0001.jpg"]
    assert left == 0


async def test_limit_counts_images_that_are_sent(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """With --limit N a run sends N images, and the next run sends the next N."""
    photos(10)
    first = await ran(**asked, limit=4, output="out.jsonl")
    second = await ran(**asked, limit=4, output="out.jsonl")
    assert first.ids + second.ids == [f"photos/p{n:04}.jpg" for n in range(8)]
    assert len(endpoint.questions) == 8


async def test_stopping_writes_requests_in_flight_and_starts_no_more(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """After stop() every request in flight gets its record, and no further image is sent."""
    photos(40)
    endpoint.delay = 0.05
    finished = 0

    def stop_at_the_third(event: object) -> None:
        nonlocal finished
        finished += isinstance(event, ImageFinished)
        if finished == 3:
            batch.stop()

    batch = Batch(RunConfig.of("photos", **asked, concurrency=4), [stop_at_the_third], sleep=briefly)
    results = [result async for result in batch]
    assert sorted(r.id for r in results) == sorted({r.id for r in results})
    assert len(results) == len(endpoint.questions) < 15
    assert batch.summary is not None
    assert batch.summary.stopped


async def test_an_image_that_is_ready_at_the_stop_is_not_sent(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Once the run stops, an image that gets a slot sends no request."""
    photos(1)
    stop, config = asyncio.Event(), RunConfig.of("photos", **asked)
    source = DirectorySource(("photos",), config.input)
    async with AsyncExitStack() as stack:
        session = await Session.open(config, notify=lambda event: None, stop=stop, stack=stack)
        async with session.supervisor.at_work(session.urls):
            sent = len(endpoint.questions)
            stop.set()
            with pytest.raises(asyncio.CancelledError):
                await session.processor.process(
                    ImageTask(tuple(source), source, session.question(prompt="Why?"))
                )
    assert len(endpoint.questions) == sent


async def test_stopping_does_not_wait_for_an_endpoint_that_is_down(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A paused run ends at once when it is stopped, without a failure."""
    photos(5)
    endpoint.script = ["down:9999"]

    def stop_when_paused(event: object) -> None:
        if isinstance(event, EndpointPaused):
            batch.stop()

    batch = Batch(RunConfig.of("photos", **asked), [stop_when_paused])  # with real, long waits
    async with asyncio.timeout(240):
        results = [result async for result in batch]
    assert all(result.ok for result in results)


async def test_a_run_that_ends_early_leaves_no_thread_behind(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """The thread that finds the images ends with the run, although many images are left."""
    photos(200)
    endpoint.script = lambda request: "404-model"
    done = await ran(**asked, canary=False)
    assert isinstance(done.error, FatalBackendError)
    walking = [thread for thread in threading.enumerate() if thread.name == "vlmbatch-walk"]
    for thread in walking:
        await asyncio.to_thread(thread.join, 30)
    assert not any(thread.is_alive() for thread in walking)


async def test_a_count_that_hangs_does_not_hold_the_end(
    photos: Photos, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose images are all answered ends, although a disk hangs while the images are counted."""
    photos(3)
    hung, free, scandir = threading.Event(), threading.Event(), os.scandir

    def hanging(path: Any) -> Any:
        if threading.current_thread().name.startswith("vlmbatch-count"):
            hung.set()
            free.wait(240)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", hanging)
    try:
        done = await asyncio.wait_for(ran(**asked), 200)
    finally:
        free.set()
    assert hung.is_set()
    assert len(done.ids) == 3


async def test_a_busy_endpoint_gets_fewer_requests_at_once(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """With --concurrency auto, one "busy" at least halves the number of requests at once."""
    photos(20)
    endpoint.script = lambda request: "503-busy" if request.chat == 3 else "ok"
    done = await ran(**asked)
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    limits = [event.concurrency for event in done.events if isinstance(event, ConcurrencyChanged)]
    assert min(limits) <= started.concurrency // 2
    assert all(result.ok for result in done.results)


async def test_failures_of_many_images_in_a_row_pause_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """An endpoint that fails over ten images in a row is probed, and all images are answered in the end."""
    photos(30)
    endpoint.script = lambda request: "500" if 5 <= (request.chat or 0) < 15 else "ok"
    done = await ran(**asked, concurrency=4)
    assert all(result.ok for result in done.results)
    paused = [event for event in done.events if isinstance(event, EndpointPaused)]
    assert "requests in a row failed" in paused[0].message


async def test_the_summary_counts_the_images_of_earlier_runs(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Images that an earlier run answered, or found to fail for good, are part of the total."""
    photos(5)
    refused: list[str] = []

    def script(request: Received) -> str:
        if request.chat == 2:
            refused.append(request.pictures[0].sha256)
        return "400" if request.pictures[0].sha256 in refused else "ok"

    endpoint.script = script
    await ran(**asked, output="o.jsonl")
    done = await ran(**asked, output="o.jsonl")
    assert done.summary is not None
    assert (done.summary.total, done.summary.skipped, done.summary.failed_before) == (5, 4, 1)


async def test_the_run_digest_changes_with_the_options_of_an_answer(
    photos: Photos, asked: dict[str, Any]
) -> None:
    """Prompt, system, size, quality and generation change `run`; concurrency, retries and timeout do not."""
    photos(1)

    async def digest(**options: Any) -> str:
        started = (await ran(**{**asked, **options})).of(RunStarted)[0]
        assert isinstance(started, RunStarted)
        return started.run

    base = await digest()
    for same in ({"concurrency": 3}, {"retries": 1}, {"timeout": 9.0}, {"prompt": "Describe this image."}):
        assert await digest(**same) == base
    others = [
        await digest(**other)
        for other in (
            {"prompt": "x"},
            {"system": "x"},
            {"max_size": 64},
            {"quality": 50},
            {"seed": 1},
            {"max_tokens": 5},
        )
    ]
    assert len({base, *others}) == 7


async def test_files_that_need_no_change_are_sent_unchanged(
    tmp_path: Path, photos: Photos, endpoint: Endpoint
) -> None:
    """A small plain JPEG reaches the endpoint with the same bytes."""
    folder = photos(0)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG")
    (folder / "plain.jpg").write_bytes(buffer.getvalue())
    await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision")
    [question] = endpoint.questions
    assert base64.b64decode(question.body["messages"][-1]["images"][0]) == buffer.getvalue()


def sent(done: Ran, image_id: str) -> str:
    """The SHA-256 of the picture that was sent for an image, from the endpoint's answer."""
    result = next(r for r in done.results if r.id == image_id)
    assert result.completion is not None
    return result.completion.text.split("sha256=")[1].split()[0]


def seed_of(body: Any) -> object:
    """The seed in a request of either wire."""
    return body.get("options", body).get("seed")


async def test_the_images_are_counted_only_if_one_is_asked_about(
    photos: Photos, asked: dict[str, Any], tmp_path: Path
) -> None:
    """The count begins after the first image to send, so a run without such an image does not count."""
    photos(3)
    output = str(tmp_path / "out.jsonl")
    first = await ran(**asked, output=output)
    second = await ran(**asked, output=output)
    assert second.summary is not None
    assert (second.summary.skipped, len(second.results)) == (3, 0)
    assert not second.of(TotalKnown)
    assert first.of(TotalKnown) in ([], [TotalKnown(total=3)])  # the run may end before the count
