"""Jobs and their claims in a real Redis."""

import json
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from jobs_of import QUESTION, claims_of, end_leases, job, names, record
from redis_server import RedisServer
from rq import Queue
from rq.job import Job

from vlmbatch.errors import ConfigError
from vlmbatch.jobs.batches import Batches
from vlmbatch.jobs.claims import MOST_DEATHS
from vlmbatch.jobs.job import FORMAT
from vlmbatch.jobs.job_queue import JobQueue
from vlmbatch.jobs.names import QUEUES, batch_key, job_key, question_key, queue_key, results_key
from vlmbatch.jobs.registration import workers

pytestmark = pytest.mark.long


def test_priorities_and_models_decide_the_order(queue: JobQueue) -> None:
    """A worker gets high jobs first, then normal and low ones, and none of another model."""
    added = [
        job("low", priority="low"),
        job("normal"),
        job("mine", model="m"),
        job("other", model="x", priority="high"),
        job("high", priority="high"),
    ]
    assert queue.add(added) == 5
    assert names(claims_of(queue).claim(10)) == ["high", "mine", "normal", "low"]
    assert queue.counts() == {"queued": 1, "started": 4, "finished": 0, "failed": 0}


def test_a_known_job_is_not_added_again(queue: JobQueue) -> None:
    """A job that waits, works or has a result stays as it is; a cancelled one can be added again."""
    claims = claims_of(queue)
    assert queue.add([job("a"), job("a"), job("b")]) == 2
    assert queue.add([job("a")]) == 0
    (first,) = claims.claim(1)
    assert queue.add([job("a")]) == 0
    claims.finish([(first, record("a"))])
    assert queue.add([job("a")]) == 0
    assert queue.cancel(job("b")) == "queued"
    assert queue.add([job("b")]) == 1
    assert names(claims.claim(5)) == ["b"]


def test_the_first_result_counts(queue: JobQueue) -> None:
    """Two workers finish the same job: the first result stays, and no trace of either lease is left."""
    queue.add([job("a")])
    one, two = claims_of(queue, "one"), claims_of(queue, "two")
    early = one.claim(1)
    end_leases(queue, early)
    assert two.reclaim() == []
    late = two.claim(1)
    assert names(late) == ["a"]
    assert one.finish([(early[0], record("a"))]) == [True]
    assert queue.counts()["started"] == 0
    assert two.finish([(late[0], record("a", "error"))]) == [False]
    found = queue.find(job("a").id)
    assert found is not None
    assert (found.status, found.record) == ("complete", record("a"))
    assert queue.counts() == {"queued": 0, "started": 0, "finished": 1, "failed": 0}


def test_a_result_that_comes_late_ends_the_second_try(queue: JobQueue) -> None:
    """A job that is in the queue once more gets its result from the first worker: no other one takes it."""
    queue.add([job("a"), job("b")])
    claims = claims_of(queue)
    (early,) = claims.claim(1)
    end_leases(queue, [early])
    assert claims.reclaim() == []
    assert claims.finish([(early, record("a"))]) == [True]
    assert names(claims.claim(2)) == ["b"]
    end_leases(queue, [early])  # a trace that is left
    assert claims.reclaim() == []
    assert claims.claim(2) == []


def test_results_expire(queue: JobQueue) -> None:
    """A job and its result are kept for the time of the job, its question longer, a waiting job for ever."""
    queue.keep_question(QUESTION, {})
    queue.add([job("a", keep_s=100), job("b")])
    claims = claims_of(queue)
    claims.finish([(each, record("a")) for each in claims.claim(1)])
    keys = (job_key(job("a").id), results_key(job("a").id), question_key(QUESTION), job_key(job("b").id))
    done, result, question, waiting = (int(queue.connection.redis.ttl(key)) for key in keys)
    assert 0 < done <= 100
    assert 0 < result <= 100
    assert question > 50 * 24 * 3600
    assert waiting == -1


def test_a_job_whose_worker_died_goes_to_the_front(queue: JobQueue) -> None:
    """A job comes back once its lease is over, and not before; an extended lease is not over."""
    queue.add([job("a"), job("b"), job("c")])
    dead, alive = claims_of(queue, "dead"), claims_of(queue, "alive")
    lost, kept = dead.claim(1), alive.claim(1)
    assert alive.reclaim() == []
    end_leases(queue, [*lost, *kept])
    assert alive.extend(kept) == set()
    assert alive.reclaim() == []
    assert names(alive.claim(2)) == ["a", "c"]
    assert dead.extend(lost) == {lost[0].job.id}
    dead.release(lost)
    assert alive.claim(1) == []


def test_a_job_that_kills_its_workers_is_not_tried_for_ever(queue: JobQueue) -> None:
    """After the last death the job comes back as dead, once, and it is not in the queue again."""
    queue.add([job("a")])
    claims = claims_of(queue)
    for _ in range(MOST_DEATHS - 1):
        end_leases(queue, claims.claim(1))
        assert claims.reclaim() == []
    end_leases(queue, claims.claim(1))
    dead = claims.reclaim()
    assert names(dead) == ["a"]
    assert claims.reclaim() == []
    assert claims.claim(1) == []
    assert claims.finish([(dead[0], record("a", "error"))]) == [True]


def test_jobs_that_are_given_back_keep_their_order(queue: JobQueue) -> None:
    """Jobs that a worker gives back are in front of the others, in their order."""
    queue.add([job(name) for name in "abcd"])
    claims = claims_of(queue)
    claims.release(claims.claim(3))
    assert names(claims.claim(4)) == ["a", "b", "c", "d"]


def test_a_cancelled_job_is_lost_for_its_worker(queue: JobQueue) -> None:
    """The worker learns of it with its next beat, and its result changes nothing."""
    queue.add([job("a"), job("b")])
    claims = claims_of(queue)
    held = claims.claim(2)
    assert queue.cancel(held[0].job) == "started"
    assert queue.cancel(held[1].job, lets_started_go_on=True) == "started"
    assert claims.extend(held) == {held[0].job.id}
    assert claims.finish([(each, record("x")) for each in held]) == [False, True]
    assert [found and found.status for found in queue.find_all([each.job.id for each in held])] == [
        "cancelled",
        "complete",
    ]


class Planted:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._file,)


@pytest.mark.parametrize("packed", [True, False])
def test_a_planted_pickle_is_never_loaded(queue: JobQueue, tmp_path: Path, packed: bool) -> None:
    """A pickle in the place of a job becomes a failed job with a message, and the next job is done."""
    data = pickle.dumps(("os.system", None, (Planted(tmp_path / "made"),), {}))
    redis = queue.connection.redis
    redis.hset(job_key("evil"), mapping={"status": "queued", "data": zlib.compress(data) if packed else data})
    redis.rpush(queue_key("vlmbatch:high"), "evil")
    redis.sadd(QUEUES, queue_key("vlmbatch:high"))
    queue.add([job("a")])
    told: list[str] = []
    assert names(claims_of(queue, told=told).claim(5)) == ["a"]
    assert told == [
        "the job evil is not from vlmbatch, and is now a failed job: its data is not JSON; vlmbatch never "
        "reads other data"
    ]
    found = queue.find("evil")
    assert found is not None
    assert (found.status, found.record) == ("failed", None)
    assert queue.counts()["failed"] == 1
    assert list(tmp_path.iterdir()) == []
    pickle.loads(data)  # the trap works
    assert [file.name for file in tmp_path.iterdir()] == ["made"]


def test_names_and_times_of_other_programs_do_no_harm(queue: JobQueue) -> None:
    """A job, a worker, a time and a batch that are not UTF-8, or no time, end no program."""
    redis, odd = queue.connection.redis, b"\x80\x04\xff"
    redis.hset(b"rq:job:" + odd, mapping={"status": "queued", "data": b"5", "enqueued_at": odd})
    redis.rpush(queue_key("vlmbatch:high"), odd)
    redis.sadd(QUEUES, queue_key("vlmbatch:high"))
    redis.sadd("rq:workers", odd)
    redis.hset(odd, mapping={"vlmbatch_model": odd, "vlmbatch_version": odd})
    queue.add([job("a")])
    assert queue.oldest_s() < 3600
    assert [worker.model.encode(errors="surrogateescape") for worker in workers(queue.connection)] == [odd]
    told: list[str] = []
    claims = claims_of(queue, told=told)
    assert names(claims.claim(1)) == ["a"]
    assert len(told) == 1
    assert redis.hget(b"rq:job:" + odd, "status") == b"failed"
    for name, value in (("total", odd), ("run", odd), ("settings", b"[]")):
        redis.hset(batch_key("b"), name, value)
        with pytest.raises(ConfigError, match="cannot read the batch b at "):
            Batches(queue).state("b")
        redis.hdel(batch_key("b"), name)


def test_other_data_in_a_job_is_set_aside(queue: JobQueue) -> None:
    """Bombs and wrong fields end no worker."""
    redis = queue.connection.redis
    bodies = [
        b"",
        b"[",
        zlib.compress(b"[" * 5000),
        zlib.compress(b" " * 50_000_000),
        b'["f",null,[],{"v":1}]',
        b'["f",null,[],{"v":true,"images":5}]',
        b'["f",null,[],[1]]',
        b"5",
        json.dumps(["f", None, [], job("a").payload() | {"keep_s": 10**30}]).encode(),
    ]
    good = json.dumps(["f", None, [], job("a").payload()]).encode()
    bodies.append(zlib.compress(good + b" " * 50_000_000))
    for number, data in enumerate(bodies):
        redis.hset(job_key(f"bad{number}"), mapping={"status": "queued", "data": data})
        redis.rpush(queue_key("vlmbatch:normal"), f"bad{number}")
    told: list[str] = []
    assert claims_of(queue, told=told).claim(20) == []
    assert len(told) == len(bodies)


def test_a_worker_of_an_older_version_leaves_newer_jobs(queue: JobQueue) -> None:
    """It says what to do, and the job is at the front of the queue again, with those behind it."""
    queue.add([job("a"), job("b")])
    key = job_key(job("a").id)
    data = zlib.decompress(queue.connection.redis.hget(key, "data") or b"")
    newer = data.replace(f'"v": {FORMAT}'.encode(), f'"v": {FORMAT + 1}'.encode())
    queue.connection.redis.hset(key, "data", zlib.compress(newer))
    claims = claims_of(queue)
    with pytest.raises(ConfigError, match="newer version of vlmbatch; update vlmbatch for this worker"):
        claims.claim(2)
    queue.connection.redis.hset(key, "data", zlib.compress(data))
    assert names(claims.claim(2)) == ["a", "b"]


def test_tools_of_rq_show_the_jobs(queue: JobQueue, redis_of_module: RedisServer) -> None:
    """RQ reads our jobs and results; its own cleaning puts the job of a dead worker back."""
    queue.add([job("a"), job("b")])
    claims = claims_of(queue)
    done, started = claims.claim(2)
    claims.finish([(done, record("a"))])
    redis = queue.connection.redis
    assert Job.fetch(done.job.id, connection=redis, serializer="json").return_value() == record("a")
    command = [sys.executable, "-m", "rq.cli", "info", "--url", redis_of_module.url, "--raw"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "queue vlmbatch:normal 0" in shown
    end_leases(queue, [started])
    of_rq = Queue("vlmbatch:normal", connection=redis, serializer="json")
    of_rq.started_job_registry.cleanup()
    assert names(claims.claim(1)) == ["b"]


def test_the_question_of_a_job_is_kept(queue: JobQueue) -> None:
    """Workers find the options of a question by its digest."""
    claims = claims_of(queue)
    assert claims.question(QUESTION) is None
    queue.keep_question(QUESTION, {"prompt": "Ä?", "max_tokens": 5})
    assert claims.question(QUESTION) == {"prompt": "Ä?", "max_tokens": 5}
