"""The folder of --cache: the answers that it stores for later runs, and its behaviour on failures."""

import json
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
    """Opens the cache of one folder; returns it and the list of its messages."""

    def again() -> tuple[Cache, list[str]]:
        told = list[str]()
        return Cache(str(tmp_path / "deep" / "cache"), told.append), told

    return again


def test_a_stored_answer_is_found_at_once_and_later(opened: Opened) -> None:
    """An answer is found only by its run, content and prompt, at once and after reopening the cache."""
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


def test_only_new_answers_are_stored(opened: Opened) -> None:
    """Failures, copies of answers and cached answers are not stored."""
    cache, _ = opened()
    for result in (failed("a.jpg"), answered("b.jpg", duplicate_of="a.jpg"), answered("c.jpg", cached=True)):
        cache.keep(seen(result))
    assert cache.find(RUN, SHA256, "default") is None
    cache.close()


def test_two_runs_share_a_cache(opened: Opened) -> None:
    """An answer that one cache stores is found by another that is already open."""
    (one, _), (two, _) = opened(), opened()
    one.keep(seen(answered("a.jpg")))
    one.close()
    assert two.find(RUN, SHA256, "default") is not None
    two.close()


def test_the_endpoint_is_remembered(opened: Opened) -> None:
    """The endpoint is found for the options that led to it, and for no other options."""
    cache, _ = opened()
    cache.keep_endpoint(ENDPOINT, "ollama", "http://x", "llava")
    assert cache.endpoint("ollama", "http://x", "llava") == ENDPOINT
    assert cache.endpoint("ollama", "http://x", "other") is None
    cache.close()


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, where: str) -> None:
    """A --cache that is no folder is a ConfigError."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"--cache .* cannot be used"):
        Cache(str(tmp_path / where), print)


def test_another_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    """A file of the same name that is not a database is not overwritten."""
    (tmp_path / FILE).write_text("a thesis, not a database " * 99)
    with pytest.raises(ConfigError, match="not a database"):
        Cache(str(tmp_path), print)
    assert (tmp_path / FILE).read_text().startswith("a thesis")


def test_a_failure_is_reported_once_and_ends_nothing(opened: Opened, tmp_path: Path) -> None:
    """A database that fails during a run is reported once and not used from then on."""
    cache, told = opened()
    with sqlite3.connect(tmp_path / "deep" / "cache" / FILE) as other:
        other.execute("DROP TABLE answers")
    other.close()
    for _ in range(3):
        cache.keep(seen(answered("a.jpg")))
        assert cache.find(RUN, SHA256, "default") is None
    cache.close()
    (said,) = told
    assert "continues without it" in said


def test_a_remembered_endpoint_has_no_version(opened: Opened, tmp_path: Path) -> None:
    """The version is not stored, so entries have the same fields whether it is known or not."""
    cache, _ = opened()
    cache.keep_endpoint(replace(ENDPOINT, version="0.33.0"), "x")
    with closing(sqlite3.connect(tmp_path / "deep" / "cache" / FILE)) as other:
        ((stored,),) = other.execute("SELECT endpoint FROM endpoints").fetchall()
    assert json.loads(stored) == {
        **dict.fromkeys(("digest", "slots", "context", "architecture", "sees")),
        "backend": "ollama",
        "url": "http://127.0.0.1:11434",
        "model": "llava:7b",
        "notes": [],
    }
    assert cache.endpoint("x") == ENDPOINT
    cache.close()


@pytest.mark.parametrize("record", ["not json", "[" * 100_000, "7"])
def test_a_damaged_entry_is_none(opened: Opened, tmp_path: Path, record: str) -> None:
    """An answer or an endpoint that was damaged, or written by another version, is not found."""
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


def test_many_threads_can_create_one_cache_at_once(tmp_path: Path) -> None:
    """Eight threads that open a new cache at the same time all succeed."""
    for attempt in range(10):
        place = str(tmp_path / f"{attempt}")
        with ThreadPoolExecutor(8) as threads:
            for cache in threads.map(lambda _, place=place: Cache(place, print), range(8)):
                cache.close()


def test_a_truncated_answer_is_not_stored(opened: Opened) -> None:
    """An answer that only --accept length accepts is not stored, since a later run may not accept it."""
    cache, _ = opened()
    cut = seen(answered("a.jpg"))
    assert cut.completion is not None
    cache.keep(replace(cut, completion=replace(cut.completion, finish_reason="length")))
    assert cache.find(RUN, SHA256, "default") is None
    cache.close()


async def asked(endpoint: Endpoint, **options: Any) -> Ran:
    return await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", cache="cache", **options)


async def test_a_new_output_is_filled_without_requests(photos: Photos, endpoint: Endpoint) -> None:
    """A second run with the same settings takes its answers from the cache, and its records say so."""
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
async def test_other_settings_need_requests(
    photos: Photos, endpoint: Endpoint, change: dict[str, Any]
) -> None:
    """A run with other settings does not use the cached answers."""
    photos(3)
    await asked(endpoint)
    await asked(endpoint, **change)
    assert len(endpoint.questions) == 6


async def test_cached_answers_are_used_while_the_endpoint_is_down(photos: Photos, endpoint: Endpoint) -> None:
    """While the endpoint is down, cached answers are used; any other image ends the run as unavailable."""
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
    """An unusable --cache ends the command with exit code 2 and a message before any request."""
    folder = photos(1)
    done = run(
        "run", "photos", "-b", "ollama", "--base-url", endpoint.url, "--cache", str(folder / "p0000.jpg")
    )
    assert done.returncode == 2
    assert "--cache" in done.stderr
    assert not endpoint.questions
