"""Images of the same content: one is sent, and each has its own record."""

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import records, run
from endpoint import Endpoint
from PIL import Image
from running import Ran, ran

from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig

Photos = Callable[..., Path]


@pytest.fixture(params=["ollama", "vllm"])
def ask(request: pytest.FixtureRequest, endpoint: Endpoint) -> Callable[..., Any]:
    """Runs over one of the wires."""

    async def asked(**options: Any) -> Ran:
        return await ran(backend=request.param, base_url=endpoint.url, model="tiny-vision", **options)

    return asked


def copies(folder: Path, of: str, count: int) -> None:
    """Make N copies of a photo, half of them before it and half after it in the order of names."""
    for n in range(count):
        shutil.copy(folder / of, folder / f"{'az'[n % 2]}-copy{n}-{of}")


@pytest.mark.parametrize("output", ["-", "o.jsonl"])
async def test_each_content_is_sent_once(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any], output: str
) -> None:
    """Of five photos and their twenty copies only five are sent, and all 25 have the right answer."""
    folder = photos(5)
    for n in range(5):
        copies(folder, f"p{n:04}.jpg", 4)
    endpoint.delay = 0.05
    done = await ask(output=output, concurrency=8)
    assert len(endpoint.questions) == 5
    by_content = {r.image.sha256: set[Any]() for r in done.results}
    for result in done.results:
        assert result.completion is not None
        by_content[result.image.sha256].add(result.completion.text)
        assert result.image.mtime == Path(result.id).stat().st_mtime
    assert len(done.results) == 25
    assert [len(texts) for texts in by_content.values()] == [1] * 5
    originals = {r.id for r in done.results if r.duplicate_of is None}
    assert len(originals) == 5
    assert {r.duplicate_of for r in done.results} - {None} == originals
    assert done.summary is not None
    assert done.summary.duplicates == 20
    assert done.summary.usage.output_tokens == sum(
        r.completion.usage.output_tokens for r in done.results if r.id in originals and r.completion
    )


async def test_a_failed_original_costs_its_copies_nothing(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """If the first copy fails, a second one is sent, and all others reuse its answer."""
    copies(photos(1), "p0000.jpg", 5)
    endpoint.script = ["400", "400"]  # the second one after a question about another picture
    done = await ask(concurrency=4)
    assert Counter(r.ok for r in done.results) == {True: 5, False: 1}
    assert len(endpoint.questions) == 3


async def test_a_content_that_always_fails_is_sent_twice(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """Two of thirty copies are sent and fail, all thirty have this failure, and other images are answered."""
    folder = photos(5)
    Image.new("RGB", (100, 80)).save(folder / "bad.jpg")
    copies(folder, "bad.jpg", 29)
    endpoint.script = lambda request: "400" if request.pictures[0].width == 100 else "ok"
    done = await ask(output="o.jsonl", concurrency=2)
    assert done.error is None
    assert Counter(r.ok for r in done.results) == {False: 30, True: 5}
    assert len(endpoint.questions) == 2 * 2 + 5
    failures = [r for r in done.results if r.failure]
    assert {r.failure.kind for r in failures if r.failure} == {"rejected"}
    assert Counter(r.attempts for r in failures) == {0: 28, 1: 2}
    assert {r.duplicate_of for r in failures if not r.attempts} <= {r.id for r in failures if r.attempts}


async def test_a_touched_image_is_no_duplicate_of_itself(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """A file with a new time and the same content reuses its own answer, and is not named as a duplicate."""
    folder = photos(2)
    await ask(output="o.jsonl")
    os.utime(folder / "p0000.jpg", (1, 1))
    second = await ask(output="o.jsonl")
    (again,) = second.results
    assert (again.id, again.duplicate_of, again.cached) == ("photos/p0000.jpg", None, True)
    assert len(endpoint.questions) == 2


async def test_without_dedupe_every_copy_is_sent(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """Without --dedupe every image is sent, and none is a duplicate."""
    copies(photos(1), "p0000.jpg", 3)
    done = await ask(dedupe=False)
    assert len(endpoint.questions) == 4
    assert [r.duplicate_of for r in done.results] == [None] * 4


@pytest.mark.parametrize("wire", ["ollama", "vllm"])
async def test_a_stop_while_copies_wait_loses_nothing(photos: Photos, endpoint: Endpoint, wire: str) -> None:
    """A run that ends while copies wait leaves them for the next run, which sends one of them."""
    copies(photos(1), "p0000.jpg", 5)
    endpoint.script = ["hang"]
    options = {"backend": wire, "base_url": endpoint.url, "model": "tiny-vision", "output": "o.jsonl"}
    first = Batch(RunConfig.of("photos", **options, drain=0))

    async def stop_when_one_is_sent() -> None:
        await asyncio.to_thread(endpoint.until, lambda: endpoint.questions)
        first.stop()

    async with asyncio.TaskGroup() as group:
        group.create_task(stop_when_one_is_sent())
        assert [result async for result in first] == []
    second = await ran(**options)
    assert len(second.results) == 6
    assert len(endpoint.questions) == 2


async def test_a_renamed_image_reuses_its_old_answer(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """An image that was renamed after a run reuses its old answer, found by content in the output."""
    folder = photos(4)
    first = await ask(output="o.jsonl")
    (folder / "p0002.jpg").rename(folder / "renamed.jpg")
    second = await ask(output="o.jsonl")
    (again,) = second.results
    assert (again.id, again.duplicate_of, again.attempts) == ("photos/renamed.jpg", "photos/p0002.jpg", 0)
    assert len(endpoint.questions) == 4
    texts = {r.id: r.completion.text for r in (*first.results, again) if r.completion}
    assert texts["photos/renamed.jpg"] == texts["photos/p0002.jpg"]


async def test_repeated_stops_send_no_content_twice(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """Runs with --limit over 40 images of ten contents send each content once, and answer all images."""
    folder = photos(10)
    for n in range(10):
        copies(folder, f"p{n:04}.jpg", 3)
    for limit in (3, 7, 11):
        await ask(output="o.jsonl", limit=limit)
    await ask(output="o.jsonl")
    lines = records(Path("o.jsonl").read_text())
    assert len({line["id"] for line in lines}) == len(lines) == 40
    assert len(endpoint.questions) == 10


def test_record_and_summary_show_duplicates(photos: Photos, endpoint: Endpoint) -> None:
    """The record of a copy names the image whose answer it has, and the summary counts the duplicates."""
    copies(photos(1), "p0000.jpg", 2)
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    assert done.returncode == 0
    lines = {line["id"]: line for line in records(Path("o.jsonl").read_text())}
    named = [line["duplicate_of"] for line in lines.values() if "duplicate_of" in line]
    assert len(named) == 2
    assert all("duplicate_of" not in lines[name] for name in named)
    assert "3 answered, 2 of them duplicates" in done.stderr
