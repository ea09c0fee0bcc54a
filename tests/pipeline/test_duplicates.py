"""Images of the same content: asked about once, and each has its record."""

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

Photos = Callable[..., Path]


@pytest.fixture(params=["ollama", "vllm"])
def ask(request: pytest.FixtureRequest, endpoint: Endpoint) -> Callable[..., Any]:
    """Runs over one of the wires."""

    async def asked(**options: Any) -> Ran:
        return await ran(backend=request.param, base_url=endpoint.url, model="tiny-vision", **options)

    return asked


def copies(folder: Path, of: str, count: int) -> None:
    """So many copies of a photo, some before and some after it in the order of names."""
    for n in range(count):
        shutil.copy(folder / of, folder / f"{'az'[n % 2]}-copy{n}-{of}")


@pytest.mark.parametrize("output", ["-", "o.jsonl"])
async def test_each_content_is_asked_once(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any], output: str
) -> None:
    """Of five photos and their twenty copies five are asked about, and all 25 have the right answer."""
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
    """Where the first of them fails, another is asked about, and all others have that answer."""
    copies(photos(1), "p0000.jpg", 5)
    endpoint.script = ["400"]
    done = await ask(concurrency=4)
    assert Counter(r.ok for r in done.results) == {True: 5, False: 1}
    assert len(endpoint.questions) == 2


async def test_a_content_that_always_fails_holds_up_nobody(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """Two of thirty copies are asked about in vain, all thirty have that failure, and others are answered."""
    folder = photos(5)
    Image.new("RGB", (100, 80)).save(folder / "bad.jpg")
    copies(folder, "bad.jpg", 29)
    endpoint.script = lambda request: "400" if request.pictures[0].width == 100 else "ok"
    done = await ask(output="o.jsonl", concurrency=2)
    assert done.error is None
    assert Counter(r.ok for r in done.results) == {False: 30, True: 5}
    assert len(endpoint.questions) == 2 + 5
    failures = [r for r in done.results if r.failure]
    assert {r.failure.kind for r in failures if r.failure} == {"rejected"}
    assert Counter(r.attempts for r in failures) == {0: 28, 1: 2}
    assert {r.duplicate_of for r in failures if not r.attempts} <= {r.id for r in failures if r.attempts}


async def test_a_touched_image_is_no_duplicate_of_itself(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """A file with another time and the same content has its answer again, under its own name."""
    folder = photos(2)
    await ask(output="o.jsonl")
    os.utime(folder / "p0000.jpg", (1, 1))
    second = await ask(output="o.jsonl")
    (again,) = second.results
    assert (again.id, again.duplicate_of, again.cached) == ("photos/p0000.jpg", None, True)
    assert len(endpoint.questions) == 2


async def test_they_can_all_be_asked_about(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """Without --dedupe every image is a question of its own."""
    copies(photos(1), "p0000.jpg", 3)
    done = await ask(dedupe=False)
    assert len(endpoint.questions) == 4
    assert [r.duplicate_of for r in done.results] == [None] * 4


async def test_a_stop_while_copies_wait_loses_nothing(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """A run that ends while copies wait for their original leaves them for the next, which asks once."""
    copies(photos(1), "p0000.jpg", 5)
    endpoint.script = ["hang"]
    first = await ask(output="o.jsonl", max_duration=0.5, drain=0)
    assert first.results == []
    second = await ask(output="o.jsonl")
    assert len(second.results) == 6
    assert len(endpoint.questions) == 2


async def test_a_renamed_image_has_its_old_answer(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """What an earlier run has written is found by its content, though memory has none of it."""
    folder = photos(4)
    first = await ask(output="o.jsonl")
    (folder / "p0002.jpg").rename(folder / "renamed.jpg")
    second = await ask(output="o.jsonl")
    (again,) = second.results
    assert (again.id, again.duplicate_of, again.attempts) == ("photos/renamed.jpg", "photos/p0002.jpg", 0)
    assert len(endpoint.questions) == 4
    texts = {r.id: r.completion.text for r in (*first.results, again) if r.completion}
    assert texts["photos/renamed.jpg"] == texts["photos/p0002.jpg"]


async def test_kills_ask_about_no_content_twice(
    photos: Photos, endpoint: Endpoint, ask: Callable[..., Any]
) -> None:
    """A run that stops again and again asks about each of ten contents once, and answers all 40 images."""
    folder = photos(10)
    for n in range(10):
        copies(folder, f"p{n:04}.jpg", 3)
    for limit in (3, 7, 11):
        await ask(output="o.jsonl", limit=limit)
    await ask(output="o.jsonl")
    lines = records(Path("o.jsonl").read_text())
    assert len({line["id"] for line in lines}) == len(lines) == 40
    assert len(endpoint.questions) == 10


def test_the_record_and_the_summary_tell(photos: Photos, endpoint: Endpoint) -> None:
    """The record of a copy names the image whose answer it has, and the command says how many there were."""
    copies(photos(1), "p0000.jpg", 2)
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    assert done.returncode == 0
    lines = {line["id"]: line for line in records(Path("o.jsonl").read_text())}
    named = [line["duplicate_of"] for line in lines.values() if "duplicate_of" in line]
    assert len(named) == 2
    assert all("duplicate_of" not in lines[name] for name in named)
    assert "3 answered, 2 of them duplicates" in done.stderr
