"""`vlmbatch collect`: each record is in the output once, and leaves Redis only after that."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, breaking, run, start
from endpoint import Endpoint
from filled_batches import collected, filled, finish, in_queue, of_queue
from redis_server import RedisServer
from waiting import until
from written_results import records

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, LockedError, QueueAwayError
from vlmbatch.events import EndpointPaused, EndpointResumed, ImageFinished, Notice, RunStarted, TotalKnown
from vlmbatch.jobs import collect
from vlmbatch.jobs.batches import Batches
from vlmbatch.jobs.collect import LostJobs
from vlmbatch.jobs.job_queue import JobQueue
from vlmbatch.jobs.names import job_key

pytestmark = pytest.mark.long
Photos = Callable[..., Path]
OUTPUT = Path("o.jsonl")
CHANGING = ("attempts", "started_at", "duration_s")


def ids() -> list[str]:
    """The ids of the records in the output, sorted; each line must be a record."""
    return sorted(record["id"] for record in records(OUTPUT))


def photo_ids(count: int) -> list[str]:
    """The ids of this many photos."""
    return [f"photos/p{n:04}.jpg" for n in range(count)]


@pytest.fixture
def config(photos: Photos, queue: JobQueue, redis_of_module: RedisServer) -> RunConfig:
    """The options of a collection into the output; its batch has six photos, and no worker."""
    photos(6)
    found = of_queue(redis_of_module, store=".", output=str(OUTPUT))
    asyncio.run(filled(found))
    return found


def test_the_records_are_those_of_a_run(
    photos: Photos, queue: JobQueue, redis_of_module: RedisServer, endpoint: Endpoint
) -> None:
    """Workers and collect write the records and settings that `vlmbatch run` writes for the same options."""
    folder = photos(4)
    (folder / "copy.jpg").write_bytes((folder / "p0001.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(b"no picture")
    at = ("--queue", redis_of_module.url)
    asks = ("--prompt", "What?", "--max-size", "32", "--max-tokens", "77")
    model = ("--backend", "ollama", "--base-url", endpoint.url, "--model", "tiny-vision")
    assert run("enqueue", "photos", *at, "--store", "store", *asks).returncode == 0
    worker = run("worker", *at, "--store", "store", *model, "-c", "1", "--until-empty")
    assert worker.returncode == 0, worker.stderr
    done = run("collect", *at, "-o", "o.jsonl", "--summary", "s.json")
    assert done.returncode == 3, done.stderr
    assert f"using tiny-vision (queue, {redis_of_module.url}), records to o.jsonl" in done.stderr
    assert "5 answered, 1 of them duplicates, 1 failed" in done.stderr
    assert "photos/broken.jpg: bad_image" in done.stderr
    summary = json.loads(Path("s.json").read_text())
    assert (summary["exit_code"], summary["total"], summary["failures"]) == (3, 6, {"bad_image": 1})
    assert run("run", "photos", *model, *asks, "-c", "1", "-o", "run.jsonl").returncode == 3
    by_run = {record["id"]: record for record in records(Path("run.jsonl"))}
    for record in records(OUTPUT):
        known = by_run.pop(record["id"])
        assert {**record, **{name: known[name] for name in CHANGING}} == known
    assert by_run == {}
    (line,), (known_line,) = (records(Path(f"{name}.runs")) for name in (OUTPUT, "run.jsonl"))
    assert {**line, "started_at": ""} == {**known_line, "started_at": ""}
    again = run("run", "photos", *model, *asks, "-o", "o.jsonl")
    assert "5 done before, 1 failed before" in again.stderr


async def test_it_waits_until_the_batch_is_whole(config: RunConfig, queue: JobQueue) -> None:
    """A collection ends when all images are collected and no program adds further ones."""
    batches = Batches(queue)
    batches.hold("default", "fill", "another")
    working = asyncio.create_task(collected(config, waits=True))
    finish(queue, in_queue(queue, 2))
    await _until(lambda: OUTPUT.exists() and len(records(OUTPUT)) == 2)
    finish(queue, in_queue(queue), failing="p0004")
    await _until(lambda: queue.counts()["finished"] == 0)
    looked = _scripts(queue)
    await _until(lambda: working.done() or _scripts(queue) > looked + 2)
    assert not working.done()
    batches.free("default", "fill", "another")
    done = await working
    assert done.summary is not None
    assert (done.summary.total, done.summary.succeeded, done.summary.failed) == (6, 5, 1)
    assert not done.summary.stopped
    assert (len(done.of(RunStarted)), len(done.of(ImageFinished))) == (1, 6)
    assert done.of(TotalKnown) == [TotalKnown(total=6)]
    assert queue.counts() == {"queued": 0, "started": 0, "finished": 0, "failed": 0}


def _scripts(queue: JobQueue) -> int:
    """How many scripts Redis has run."""
    return int(queue.connection.redis.info("commandstats")["cmdstat_evalsha"]["calls"])


async def _until(holds: Callable[[], object]) -> None:
    await asyncio.to_thread(until, holds)


@pytest.mark.parametrize("place", ["sync", "forget"])
def test_a_killed_collection_writes_each_record_once(config: RunConfig, queue: JobQueue, place: str) -> None:
    """A collection that is killed before or after the sync of its records goes on, and repeats no record."""
    finish(queue, in_queue(queue), failing="p0002")
    where = {"sync": "vlmbatch.writers.jsonl.JsonlWriter", "forget": "vlmbatch.jobs.batches.Batches"}[place]
    module, _, name = where.rpartition(".")
    kill = "lambda *args: os.kill(os.getpid(), 9)"
    variables = breaking(Path("broken"), f"import os, {module}\n{module}.{name}.{place} = {kill}\n")
    words = ("collect", "--queue", config.jobs.queue or "", "-o", "o.jsonl")
    killed = run(*words, command=COMMAND, **variables)
    assert killed.returncode == -signal.SIGKILL
    assert ids() == photo_ids(6)
    queue.connection.redis.delete("vlmbatch:batch:default:collect")  # as after a minute
    done = run(*words)
    assert done.returncode == 3
    assert "5 done before, 1 failed before" in done.stderr
    assert ids() == photo_ids(6)
    assert queue.counts()["finished"] == 0


async def test_no_wait_writes_what_is_there(config: RunConfig, queue: JobQueue) -> None:
    """Without waiting, the records that are there are written; the summary says if images are left."""
    nothing = await collected(config)
    assert (nothing.summary, OUTPUT.exists()) == (None, False)
    told = [notice.message for notice in nothing.of(Notice)]
    assert told == [
        "no worker is running for this queue; start one with: vlmbatch worker --queue "
        f"{config.jobs.queue} --store {config.jobs.store}",
        "none of the 6 images of the batch default is done yet",
    ]
    finish(queue, in_queue(queue, 2))
    first = await collected(config)
    finish(queue, in_queue(queue))
    second = await collected(config)
    last = await collected(config)
    summaries = [done.summary for done in (first, second, last)]
    assert [(s.succeeded, s.skipped, s.stopped) for s in summaries if s] == [
        (2, 0, True),
        (4, 2, False),
        (0, 6, False),
    ]
    assert ids() == photo_ids(6)


def test_an_early_end_has_its_exit_code(config: RunConfig, queue: JobQueue) -> None:
    """With images left, --no-wait ends with 6, a signal with its code, and both say how to go on."""
    words = ("collect", "--queue", config.jobs.queue or "", "-o", "o.jsonl")
    finish(queue, in_queue(queue, 2))
    done = run(*words, "--no-wait")
    assert done.returncode == 6
    assert "4 of 6 images left; the same command goes on where this run ended" in done.stderr
    process = start(*words, stderr=subprocess.PIPE)
    finish(queue, in_queue(queue, 1))
    until(lambda: len(records(OUTPUT)) == 3)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "3 of 6 images left; the same command goes on" in told
    finish(queue, in_queue(queue))
    done = run(*words, "--no-wait", "-q")
    assert (done.returncode, done.stderr, ids()) == (0, "", photo_ids(6))


def test_standard_output_gets_each_record_once(config: RunConfig, queue: JobQueue) -> None:
    """Without -o, records go to standard output with the text of the prompt, and leave the queue."""
    finish(queue, in_queue(queue, 2))
    words = ("collect", "--queue", config.jobs.queue or "", "--no-wait")
    done = run(*words)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["prompt_text"] for record in found] == ["Describe this image."] * 2
    assert "4 of 6 images left; the same command goes on where this run ended" in done.stderr
    finish(queue, in_queue(queue))
    more = [json.loads(line) for line in run(*words).stdout.splitlines()]
    assert sorted(record["id"] for record in (*found, *more)) == photo_ids(6)


async def test_lost_jobs_are_counted(config: RunConfig, queue: JobQueue) -> None:
    """If Redis has lost jobs, all others are written, and the error says how many are lost."""
    claims = in_queue(queue)
    finish(queue, claims)
    queue.connection.redis.delete(job_key(claims[0].job.id), job_key(claims[5].job.id))
    with pytest.raises(LostJobs, match=r"has lost 2 images of the batch default; type the same"):
        await collected(config)
    assert ids() == photo_ids(6)[1:5]
    again = await filled(config)
    assert (again.counts, again.all_counts.skipped) == ((2, 0), 4)


async def test_jobs_without_a_result_that_are_lost_end_the_collection(
    config: RunConfig, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that are lost before they have a result, before or during the collection, are not waited for."""
    monkeypatch.setattr(collect, "LOST_S", 0.0)
    claims = in_queue(queue, 3)
    queue.connection.redis.delete(job_key(claims[0].job.id))
    working = asyncio.create_task(collected(config, waits=True))
    finish(queue, claims[1:])
    await _until(lambda: OUTPUT.exists() and len(records(OUTPUT)) == 2)
    queue.connection.redis.delete(*queue.connection.redis.keys(job_key("*")))
    with pytest.raises(LostJobs, match=r"has lost 4 images of the batch default; type the same"):
        await working
    assert (await filled(config)).counts == (4, 0)
    assert Batches(queue).state("default").total == 4  # type: ignore[union-attr]


async def test_an_outage_of_redis_is_a_pause(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Redis is killed, the collection says so once, goes on when it is back, and repeats no record."""
    photos(4)
    with RedisServer(tmp_path, persistent=True) as redis:
        queue = JobQueue.open(redis.url)
        config = of_queue(redis, store=".", output=str(OUTPUT))
        await filled(config)
        claims = in_queue(queue)
        finish(queue, claims[:2])
        paused = asyncio.Event()
        working = asyncio.create_task(
            collected(config, lambda e: paused.set() if isinstance(e, EndpointPaused) else None, waits=True)
        )
        await _until(lambda: OUTPUT.exists() and len(records(OUTPUT)) == 2)
        redis.kill()
        await paused.wait()
        redis.start()
        finish(queue, claims[2:])
        done = await working
        assert ids() == photo_ids(4)
        assert (len(done.of(EndpointPaused)), len(done.of(EndpointResumed))) == (1, 1)
        assert "cannot be reached" in done.of(EndpointPaused)[0].message
        redis.kill()
        with pytest.raises(QueueAwayError):
            await collected(of_queue(redis, output=str(OUTPUT), give_up_after=0))
        queue.close()


async def test_a_full_redis_can_be_emptied(config: RunConfig, queue: JobQueue) -> None:
    """A batch is collected from a Redis whose memory is full: this is how it gets room."""
    finish(queue, in_queue(queue))
    queue.connection.redis.config_set("maxmemory", 1)
    try:
        done = await collected(config)
    finally:
        queue.connection.redis.config_set("maxmemory", 0)
    assert len(done.results) == 6
    assert queue.counts()["finished"] == 0


async def test_a_batch_that_begins_anew_is_noticed(config: RunConfig, queue: JobQueue) -> None:
    """If another program starts the batch again with another question, the collection ends with a message."""
    working = asyncio.create_task(collected(config, waits=True))
    finish(queue, in_queue(queue, 1))
    await _until(lambda: OUTPUT.exists() and len(records(OUTPUT)) == 1)
    Batches(queue).delete("default")
    Batches(queue).begin("default", "another question")
    with pytest.raises(ConfigError, match="started again with another question"):
        await working


async def test_one_program_at_a_time_collects_a_batch(config: RunConfig, queue: JobQueue) -> None:
    """While a program collects a batch, another one is refused."""
    Batches(queue).hold("default", "collect", "another")
    with pytest.raises(LockedError, match="another vlmbatch collect collects the batch default"):
        await collected(config)


def test_mistakes_have_plain_messages(config: RunConfig, queue: JobQueue) -> None:
    """Each mistake ends the command with its exit code and a message that says what to type."""
    finish(queue, in_queue(queue))
    at = ("--queue", config.jobs.queue or "")
    Path("thesis.txt").write_text("my thesis")
    other = {"v": 1, "id": "a", "status": "ok", "prompt": "default", "run": "x", "model": "other"}
    Path("other.jsonl").write_text(f"{json.dumps(other)}\n")
    cases: dict[tuple[str, ...], tuple[int, str]] = {
        (): (2, "add --queue redis://127.0.0.1:6379"),
        (*at, "--batch", "b"): (2, "has no batch b: there are default; add images with vlmbatch enqueue"),
        ("--queue", "redis://127.0.0.1:1", "--give-up-after", "0"): (4, "cannot be reached"),
        (*at, "-o", "answers.csv"): (2, "answers.csv"),
        (*at, "-o", "thesis.txt.jsonl/x"): (5, "does not exist; make it with"),
        (*at, "-o", "other.jsonl"): (2, "records made with other settings"),
        (*at, "--append"): (2, "add --output FILE"),
    }
    for words, (code, told) in cases.items():
        done = run("collect", *words)
        assert (done.returncode, done.stdout) == (code, ""), (words, done.stderr)
        assert told in done.stderr, words
        assert "Traceback" not in done.stderr
    assert queue.counts()["finished"] == 6
    done = run("collect", *at, "-o", "other.jsonl", "--append")
    assert done.returncode == 0, done.stderr
    assert len(records(Path("other.jsonl"))) == 7
