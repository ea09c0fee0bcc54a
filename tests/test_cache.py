"""The folder of --cache: what it keeps for later runs, and what it does in trouble."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import records, run
from endpoint import Endpoint
from pipeline.test_dedup import SHA256, seen
from running import Ran, ran
from written_results import ENDPOINT, RUN, answered, failed

from vlmbatch.cache import FILE, Cache
from vlmbatch.errors import ConfigError, UnavailableError

Photos = Callable[..., Path]
Opened = Callable[[], tuple[Cache, list[str]]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens the cache of one folder; returns it and what it tells."""

    def again() -> tuple[Cache, list[str]]:
        told = list[str]()
        return Cache(str(tmp_path / "deep" / "cache"), told.append), told

    return again


def test_what_is_kept_is_found_at_once_and_later(opened: Opened) -> None:
    """An answer is found by its run, content and prompt and by nothing else, here and in the next process."""
    cache, told = opened()
    result = seen(answered("a.jpg", "caf\u00e9 \udcff"))
    cache.keep(result)
    for _ in range(2):
        assert cache.find(RUN, SHA256, "default") == result.to_record()
        assert cache.find("0" * 12, SHA256, "default") is None
        assert cache.find(RUN, "cd" * 32, "default") is None
        assert cache.find(RUN, SHA256, "other") is None
        cache.close()
        cache, told = opened()
    cache.close()
    assert told == []


def test_only_new_answers_are_kept(opened: Opened) -> None:
    """Failures may pass, and what was known before is there already."""
    cache, _ = opened()
    for result in (failed("a.jpg"), answered("b.jpg", duplicate_of="a.jpg"), answered("c.jpg", cached=True)):
        cache.keep(seen(result))
    assert cache.find(RUN, SHA256, "default") is None
    cache.close()


def test_two_runs_share_a_cache(opened: Opened) -> None:
    """What one process has kept, another that is open already finds."""
    (one, _), (two, _) = opened(), opened()
    one.keep(seen(answered("a.jpg")))
    one.close()
    assert two.find(RUN, SHA256, "default") is not None
    two.close()


def test_who_answered_is_remembered(opened: Opened) -> None:
    """The endpoint that some options led to is known for them, and for no others."""
    cache, _ = opened()
    cache.keep_endpoint(ENDPOINT, "ollama", "http://x", "llava")
    assert cache.endpoint("ollama", "http://x", "llava") == ENDPOINT
    assert cache.endpoint("ollama", "http://x", "other") is None
    cache.close()


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, where: str) -> None:
    """A wrong --cache ends the command before anything is asked."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"--cache .* cannot be used"):
        Cache(str(tmp_path / where), print)


def test_another_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    """What is no database of ours is not overwritten."""
    (tmp_path / FILE).write_text("a thesis, not a database " * 99)
    with pytest.raises(ConfigError, match="not a database"):
        Cache(str(tmp_path), print)
    assert (tmp_path / FILE).read_text().startswith("a thesis")


def test_trouble_is_told_once_and_ends_nothing(opened: Opened, tmp_path: Path) -> None:
    """A database that breaks during a run is left alone from then on."""
    cache, told = opened()
    with sqlite3.connect(tmp_path / "deep" / "cache" / FILE) as other:
        other.execute("DROP TABLE answers")
    other.close()
    for _ in range(3):
        cache.keep(seen(answered("a.jpg")))
        assert cache.find(RUN, SHA256, "default") is None
    cache.close()
    (said,) = told
    assert "goes on without it" in said


@pytest.mark.parametrize("record", ["not json", "[" * 100_000, "7"])
def test_a_damaged_entry_is_none(opened: Opened, tmp_path: Path, record: str) -> None:
    """An answer, or an endpoint, that somebody or another version has changed is not found."""
    cache, told = opened()
    cache.keep(seen(answered("a.jpg")))
    cache.keep_endpoint(ENDPOINT, "x")
    assert cache.find(RUN, SHA256, "default") is not None
    with closing(sqlite3.connect(tmp_path / "deep" / "cache" / FILE)) as other, other:
        other.execute("UPDATE answers SET record = ?", [record])
        other.execute("UPDATE endpoints SET endpoint = json_insert(endpoint, '$.colour', 7)")
    assert cache.find(RUN, SHA256, "default") is None
    assert cache.endpoint("x") is None
    cache.close()
    assert told == []


def test_many_may_make_one_cache_at_once(tmp_path: Path) -> None:
    """Whoever opens a new cache at the same moment as others gets it."""
    for attempt in range(10):
        place = str(tmp_path / f"{attempt}")
        with ThreadPoolExecutor(8) as threads:
            for cache in threads.map(lambda _, place=place: Cache(place, print), range(8)):
                cache.close()


def test_a_cut_answer_is_not_kept(opened: Opened) -> None:
    """What --accept length takes, a later run without it asks about again."""
    cache, _ = opened()
    cut = seen(answered("a.jpg"))
    assert cut.completion is not None
    cache.keep(replace(cut, completion=replace(cut.completion, finish_reason="length")))
    assert cache.find(RUN, SHA256, "default") is None
    cache.close()


async def asked(endpoint: Endpoint, **options: Any) -> Ran:
    return await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", cache="cache", **options)


async def test_a_new_output_is_filled_without_asking(photos: Photos, endpoint: Endpoint) -> None:
    """What was asked once with the same settings is answered from the cache, and the records say so."""
    photos(5)
    first = await asked(endpoint, output="a.jsonl")
    questions = len(endpoint.questions)
    second = await asked(endpoint, output="b.jsonl")
    assert len(endpoint.questions) == questions == 5
    assert [r.cached for r in (*first.results, *second.results)] == [False] * 5 + [True] * 5
    texts = [{r.id: r.completion.text for r in done.results if r.completion} for done in (first, second)]
    assert texts[0] == texts[1]
    assert second.summary is not None
    assert (second.summary.cached, second.summary.usage.output_tokens) == (5, 0)
    line = records(Path("b.jsonl").read_text())[0]
    assert (line["cached"], line["attempts"]) == (True, 0)


@pytest.mark.parametrize("change", [{"prompt": "What colour?"}, {"max_size": 32}, {"temperature": 0.5}])
async def test_other_settings_are_asked(photos: Photos, endpoint: Endpoint, change: dict[str, Any]) -> None:
    """The cache answers only what was asked in the same way."""
    photos(3)
    await asked(endpoint)
    await asked(endpoint, **change)
    assert len(endpoint.questions) == 6


async def test_known_images_are_answered_while_nobody_is_there(photos: Photos, endpoint: Endpoint) -> None:
    """With the endpoint away, what stands in the cache is answered; more ends the run as unavailable."""
    photos(4)
    await asked(endpoint)
    endpoint.down()
    again = await asked(endpoint, output="b.jsonl", give_up_after=0)
    assert again.error is None
    assert [r.cached for r in again.results] == [True] * 4
    photos(6)
    more = await asked(endpoint, output="c.jsonl", give_up_after=0)
    assert isinstance(more.error, UnavailableError)
    assert all(r.ok for r in more.results)
    other = await asked(endpoint, output="d.jsonl", give_up_after=0, prompt="Never asked?")
    assert isinstance(other.error, UnavailableError)
    assert other.results == []


def test_the_command_names_a_cache_that_it_cannot_use(photos: Photos, endpoint: Endpoint) -> None:
    """Exit code 2 and what is wrong, before anything is asked."""
    folder = photos(1)
    done = run(
        "run", "photos", "-b", "ollama", "--base-url", endpoint.url, "--cache", str(folder / "p0000.jpg")
    )
    assert done.returncode == 2
    assert "--cache" in done.stderr
    assert not endpoint.questions
