"""The time limit: runs that end at a time of day or after a duration, and leave the rest for the next run."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from endpoint import Endpoint
from loop_clock import LoopClock
from running import briefly

import vlmbatch.backends.ollama.backend
import vlmbatch.backends.openai.backend  # noqa: F401  # loaded before a time limit runs
from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.config.run import RunOptions
from vlmbatch.events import Notice, RunStopping
from vlmbatch.pipeline import time_limit
from vlmbatch.pipeline.time_limit import TimeLimit, next_time

Photos = Callable[..., Path]
EVENING = datetime(2026, 11, 24, 22, 15, 30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:16", datetime(2026, 11, 24, 22, 16)),
        ("23:59", datetime(2026, 11, 24, 23, 59)),
        ("22:15", datetime(2026, 11, 25, 22, 15)),
        ("06:00", datetime(2026, 11, 25, 6, 0)),
        ("00:00", datetime(2026, 11, 25, 0, 0)),
    ],
)
def test_a_time_of_day_is_the_next_one(text: str, expected: datetime) -> None:
    """A time of day that the clock shows, or has passed today, means tomorrow."""
    assert next_time(text, EVENING) == expected


async def test_a_clock_set_beyond_the_limit_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the clock jumps beyond --until, the run ends at the next check of the clock."""
    monkeypatch.setattr(time_limit, "LONGEST_WAIT_S", 0.01)
    stop, told, ahead = asyncio.Event(), list[str](), timedelta()
    with TimeLimit(RunOptions(until="06:00"), stop, told.append, now=lambda: EVENING + ahead):
        await asyncio.sleep(0.1)
        assert not stop.is_set()
        ahead = timedelta(hours=8)
        async with asyncio.timeout(240):
            await stop.wait()
    assert len(told) == 1
    assert "06:00 (--until)" in told[0]


async def test_the_earlier_limit_ends_the_run_and_is_named() -> None:
    """With both options the earlier limit ends the run, and the notice names it."""
    stop, told = asyncio.Event(), list[str]()
    options = RunOptions(until="06:00", max_duration=0.01)
    async with asyncio.timeout(240):
        with TimeLimit(options, stop, told.append, now=lambda: EVENING):
            await stop.wait()
    assert "--max-duration" in told[0]


async def test_a_finished_run_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a run that ends before its limit, no timer sets the stop event."""
    stop, told = asyncio.Event(), list[str]()
    with TimeLimit(RunOptions(max_duration=0.01), stop, told.append):
        pass
    await asyncio.sleep(0.05)
    assert (stop.is_set(), told) == (False, [])


def be_behind(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Choose a POSIX time zone that is this far behind UTC; a negative number is ahead of it."""
    minutes, second = divmod(abs(seconds), 60)
    sign = "-" if seconds < 0 else ""
    monkeypatch.setenv("TZ", f"XXX{sign}{minutes // 60:02}:{minutes % 60:02}:{second:02}")
    time.tzset()


async def test_a_run_ends_at_a_time_of_day(
    photos: Photos, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is 12:00, --until 12:00 ends the run and leaves the remaining images."""
    photos(3)
    monkeypatch.setattr(time_limit, "LONGEST_WAIT_S", 0.01)
    endpoint.script = ["ok", "held", "held"]
    options = {"backend": "ollama", "base_url": endpoint.url, "concurrency": 1, "drain": 0}
    utc = time.gmtime()
    behind = (utc.tm_hour * 3600 + utc.tm_min * 60 + utc.tm_sec - 11 * 3600) % 86_400
    try:
        be_behind(monkeypatch, behind)  # it is 11:00 now
        batch = Batch(RunConfig.of("photos", **options, until="12:00"))
        done = []
        async with asyncio.timeout(240):
            async for result in batch:
                done.append(result)
                be_behind(monkeypatch, behind - 3600)  # it is 12:00 now, of the same day
    finally:
        monkeypatch.undo()
        time.tzset()
    assert len(done) == 1
    assert batch.summary is not None
    assert batch.summary.stopped


async def test_a_run_beyond_its_time_leaves_the_rest(
    photos: Photos, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run stops after --max-duration, and the next run answers the rest, each image once."""
    photos(40)
    clock = LoopClock()
    passed = [0.0]
    monkeypatch.setitem(TimeLimit.__init__.__kwdefaults__, "clock", lambda: passed[0])
    options = {"backend": "ollama", "base_url": endpoint.url, "output": "o.jsonl", "concurrency": 2}
    events = list[object]()
    first = Batch(RunConfig.of("photos", **options, max_duration=100), [events.append])
    some = []
    async for result in first:
        some.append(result.id)
        if len(some) == 5:
            passed[0] = 100
            clock.skip(100)
    assert first.summary is not None
    assert first.summary.stopped
    assert [e for e in events if isinstance(e, Notice) and "--max-duration" in e.message]
    assert 5 <= len(some) < 40
    second = Batch(RunConfig.of("photos", **options, max_duration=100))
    rest = [result.id async for result in second]
    assert second.summary is not None
    assert not second.summary.stopped
    assert sorted(some + rest) == [f"photos/p{n:04}.jpg" for n in range(40)]


async def test_the_time_limit_ends_the_wait_for_the_endpoint(photos: Photos) -> None:
    """The time limit also ends the wait for an endpoint at the start, without an error or a record."""
    photos(1)
    options = {"backend": "ollama", "base_url": "http://127.0.0.1:9", "output": "o.jsonl"}
    batch = Batch(RunConfig.of("photos", **options, give_up_after=600, max_duration=0.2))
    async with asyncio.timeout(240):
        assert [result async for result in batch] == []
    assert batch.summary is None
    assert not Path("o.jsonl").exists()


@pytest.mark.parametrize("wire", ["ollama", "vllm"])
async def test_requests_in_flight_have_the_time_of_drain(
    photos: Photos, endpoint: Endpoint, wire: str
) -> None:
    """Answers within --drain are written; slower requests are abandoned and left for the next run."""
    photos(6)
    endpoint.script = ["ok", "held", "hang", "hang", *["ok"] * 20]
    options = {"backend": wire, "base_url": endpoint.url, "model": "tiny-vision", "output": "o.jsonl"}

    def answer_once_it_stops(event: object) -> None:
        endpoint.released = endpoint.released or isinstance(event, RunStopping)

    clock = LoopClock()
    config = RunConfig.of("photos", **options, concurrency=3, drain=100)
    batch = Batch(config, [answer_once_it_stops], sleep=briefly)

    async def stop_when_all_are_sent() -> None:
        await asyncio.to_thread(endpoint.until, lambda: len(endpoint.questions) >= 4)
        batch.stop()

    done = []
    async with asyncio.TaskGroup() as group:
        group.create_task(stop_when_all_are_sent())
        async for result in batch:
            done.append(result)
            if len(done) == 2:
                clock.skip(100)
    assert batch.summary is not None
    assert batch.summary.stopped
    assert len(done) == 2
    assert all(result.ok for result in done)
    endpoint.script = []
    again = Batch(RunConfig.of("photos", **options), sleep=briefly)
    rest = [result async for result in again]
    assert sorted(r.id for r in done + rest) == [f"photos/p{n:04}.jpg" for n in range(6)]
