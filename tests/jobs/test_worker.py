"""Real workers at a real Redis: nothing is lost, and each job is done once for its user."""

import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from queued import enqueue, opened, working
from redis_server import RedisServer
from waiting import until

from vlmbatch.jobs.claims import MOST_DEATHS, Claims
from vlmbatch.jobs.names import job_key, started_key
from vlmbatch.jobs.opening import Jobs
from vlmbatch.jobs.store import Store

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def end_leases_of(jobs: Jobs, worker: str) -> int:
    """Let a minute pass for the leases of this worker; returns how many jobs it had."""
    redis = jobs.queue.connection.redis
    registry = started_key("vlmbatch:normal")
    entries = [entry.decode() for entry in redis.zrange(registry, 0, -1)]
    owners = {entry: redis.hget(job_key(entry.partition(":")[0]), "worker_name") for entry in entries}
    dead = [entry for entry, owner in owners.items() if owner is not None and worker in owner.decode()]
    for entry in dead:
        redis.zadd(registry, {entry: 1.0})
    return len(dead)


def results(jobs: Jobs, batch: str) -> list[Any]:
    """The records of all finished jobs of a batch."""
    records = []
    while ready := jobs.batches.ready(batch):
        records += [found and found.record for _, found in ready]
        jobs.batches.forget(batch, [job_id for job_id, _ in ready])
    return records


def test_a_thousand_jobs_survive_kills_of_workers_and_of_redis(tmp_path: Path) -> None:
    """A worker and Redis are killed, Redis starts again, another worker comes: each job has one result."""
    store = tmp_path / "store"
    with (
        RedisServer(tmp_path, persistent=True) as redis,
        Endpoint(delay=0.02, slots=8) as endpoint,
        working(redis.url, store, endpoint, tmp_path / "1.log", "-c", "4") as first,
        working(redis.url, store, endpoint, tmp_path / "2.log", "-c", "4"),
    ):
        jobs = opened(redis.url, store)
        enqueue(jobs, range(1000))

        def done() -> int:
            state = jobs.batches.state("b")
            assert state is not None
            return state.succeeded

        until(lambda: done() > 150)
        first.kill()
        first.wait()
        until(lambda: done() > 300)
        redis.kill()
        redis.start()
        until(lambda: done() > 450)
        assert end_leases_of(jobs, f"-{first.pid}-") > 0
        with working(redis.url, store, endpoint, tmp_path / "3.log", "--until-empty") as third:
            until(lambda: done() == 1000)
            assert third.wait(240) == 0
        state = jobs.batches.state("b")
        assert state is not None
        assert (state.open, state.ready, state.failed, state.cancelled) == (0, 1000, 0, 0)
        records = results(jobs, "b")
        assert Counter(record["id"] for record in records) == Counter(f"photos/{n}.jpg" for n in range(1000))
        assert {record["run"] for record in records} == {state.run}
        facts = {record["id"]: record["image"] for record in records}
        assert (facts["photos/7.jpg"]["bytes"], facts["photos/7.jpg"]["mtime"]) == (1007, 1.5)
        assert "cannot be reached" in (tmp_path / "2.log").read_text()
        assert "can be used again" in (tmp_path / "2.log").read_text()


def test_a_worker_that_stops_puts_its_jobs_back(tmp_path: Path) -> None:
    """SIGTERM: the jobs in work get their results within --drain, or go back to the front of the queue."""
    store = tmp_path / "store"
    with (
        RedisServer(tmp_path) as redis,
        Endpoint() as endpoint,
        working(redis.url, store, endpoint, tmp_path / "log", "-c", "2", "--drain", "0") as worker,
    ):
        jobs = opened(redis.url, store)
        goes_on = False
        endpoint.hold_until(lambda: goes_on)
        enqueue(jobs, range(10))
        until(lambda: endpoint.open_questions == 2)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(240) == 128 + signal.SIGTERM
        assert jobs.queue.counts() == {"queued": 10, "started": 0, "finished": 0, "failed": 0}
        goes_on = True
        with working(redis.url, store, endpoint, tmp_path / "log2", "--until-empty") as other:
            assert other.wait(240) == 0
        assert len(results(jobs, "b")) == 10


def test_an_endpoint_that_is_away_pauses_the_worker(tmp_path: Path) -> None:
    """The jobs go back to the queue, where another worker can take them; the worker goes on by itself."""
    store = tmp_path / "store"
    with RedisServer(tmp_path) as redis, Endpoint(delay=0.02) as endpoint:
        at = ("-c", "2", "--give-up-after", "1")
        with working(redis.url, store, endpoint, tmp_path / "log", *at) as worker:
            jobs = opened(redis.url, store)
            enqueue(jobs, range(60))
            until(lambda: len(endpoint.questions) > 5)
            endpoint.down()
            log = tmp_path / "log"
            until(lambda: "its jobs are back in the queue" in log.read_text())
            until(lambda: jobs.queue.counts()["started"] == 0)
            assert jobs.queue.counts()["queued"] > 0
            endpoint.up()
            until(lambda: jobs.queue.counts()["finished"] == 60)
            assert worker.poll() is None
            assert "takes jobs again" in log.read_text()
            assert all(record["status"] == "ok" for record in results(jobs, "b"))


def test_jobs_that_cannot_be_done_get_a_failure(tmp_path: Path) -> None:
    """An image or a question that is gone, a question that reads files, and an image that kills workers."""
    store = tmp_path / "store"
    with RedisServer(tmp_path) as redis, Endpoint() as endpoint:
        jobs = opened(redis.url, store)
        gone, lost, reads, deadly, good = enqueue(jobs, range(5))
        jobs.store.delete(gone.images[0].key)
        jobs.queue.keep_question("reads", {"prompt_file": "/etc/hostname"})
        for each, question in ((lost, "nowhere"), (reads, "reads")):
            jobs.queue.cancel(each)
            jobs.queue.add([replace(each, question=question)])
        jobs.queue.connection.redis.hset(job_key(deadly.id), "vlmbatch_deaths", MOST_DEATHS - 1)
        claims = Claims(jobs.queue.connection, "dead", ["vlmbatch:normal"], print)
        claims.release([each for each in claims.claim(9) if each.job.id != deadly.id])
        assert end_leases_of(jobs, "dead") == 1
        with working(redis.url, store, endpoint, tmp_path / "log", "--until-empty") as worker:
            until(lambda: jobs.queue.counts()["finished"] == 5)
            assert worker.wait(240) == 0
        records = {record["id"]: record for record in results(jobs, "b")}
        assert records.pop(good.image_id)["status"] == "ok"
        errors = {
            name: (record["error"]["kind"], record["error"]["message"]) for name, record in records.items()
        }
        assert errors == {
            gone.image_id: ("vanished", "the image is no longer in the store of the queue"),
            lost.image_id: (
                "bad_config",
                "the queue no longer has the question of this job; add the image to the queue again",
            ),
            reads.image_id: (
                "bad_config",
                "the question of this job has the option 'prompt_file', which this worker does not know; "
                "update vlmbatch for this worker",
            ),
            deadly.image_id: (
                "crash",
                "3 workers died while they worked on this image; check it, and add it to the queue again",
            ),
        }


def test_a_store_that_vanished_pauses_the_worker(tmp_path: Path) -> None:
    """While the disk of the store is not mounted, no image fails; afterwards all are done."""
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    with RedisServer(tmp_path) as redis, Endpoint() as endpoint:
        jobs = opened(redis.url, store)
        log = tmp_path / "log"
        with working(redis.url, store, endpoint, log, "-c", "2"):
            enqueue(jobs, range(3), batch="first")
            until(lambda: jobs.queue.counts()["finished"] == 3)
            store.rename(elsewhere)
            store.mkdir()  # the empty mount point
            enqueue(replace(jobs, store=Store.open(str(elsewhere))), range(20))
            until(lambda: f"the store at {store} cannot be found any more; mount its disk" in log.read_text())
            until(lambda: jobs.queue.counts() == {"queued": 20, "started": 0, "finished": 3, "failed": 0})
            store.rmdir()
            elsewhere.rename(store)
            until(lambda: jobs.queue.counts()["finished"] == 23)
        assert {record["status"] for record in results(jobs, "b")} == {"ok"}
