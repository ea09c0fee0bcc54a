"""The queue, for programs that add jobs and read their results. All calls block."""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Self, TypeVar, cast

from rq.job import Job
from rq.serializers import JSONSerializer

from vlmbatch import strict_json
from vlmbatch.config.job_queue import PRIORITIES
from vlmbatch.jobs.connection import Connection
from vlmbatch.jobs.job import ImageJob, JobFormatError, JobStatus, queue_name
from vlmbatch.jobs.names import (
    QUEUES,
    batch_key,
    cancelled_key,
    failed_key,
    finished_key,
    job_key,
    now_text,
    open_key,
    plain,
    question_key,
    queue_key,
    results_key,
    started_key,
)

T = TypeVar("T")
QUESTION_S = 60 * 24 * 3600
"""How long a question is kept after the last job that has it."""
CANCELLED_S = 24 * 3600
CHUNK = 500
"""This many jobs go to Redis at once."""
WORK = "vlmbatch.jobs.job_queue.only_for_vlmbatch_worker"
_STATUS: Mapping[str, JobStatus] = {
    "queued": "pending",
    "started": "started",
    "finished": "complete",
    "failed": "failed",
    "canceled": "cancelled",
}


def only_for_vlmbatch_worker(**_payload: object) -> None:
    """RQ's own worker would call this for each job; raises a RuntimeError."""
    raise RuntimeError("RQ's worker cannot do the jobs of vlmbatch; start vlmbatch worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """A job as Redis has it. `record` is its result; a failed image has a record, too. `job` is None if no
    worker can read it."""

    id: str
    status: JobStatus
    job: ImageJob | None
    record: Mapping[str, Any] | None


class JobQueue:
    """The queue: jobs go in, and results are found by the ids of jobs."""

    def __init__(self, connection: Connection) -> None:
        """Use JobQueue.open()."""
        self.connection = connection

    @classmethod
    def open(cls, url: str) -> Self:
        """The queue in the Redis at this URL; raises as Connection.open()."""
        return cls(Connection.open(url))

    def close(self) -> None:
        """Close all connections."""
        self.connection.close()

    def keep_question(self, digest: str, options: Mapping[str, Any]) -> None:
        """Store the options of a question, before the jobs that have it."""
        with self.connection.errors():
            self.connection.redis.set(question_key(digest), json.dumps(options), ex=QUESTION_S)

    def add(self, jobs: Iterable[ImageJob]) -> int:
        """Put these jobs into their queues; returns how many are new. A known id changes nothing.

        Raises:
            QueueAwayError, QueueFullError: some jobs may be in the queue; adding all of them again is safe.
        """
        return sum(self._add(chunk) for chunk in chunks(jobs))

    def _add(self, jobs: Sequence[ImageJob]) -> int:
        with self.connection.errors(), self.connection.redis.pipeline(transaction=False) as pipe:
            add = self.connection.script("add", client=pipe)
            for job in jobs:
                keys = [
                    job_key(job.id),
                    results_key(job.id),
                    queue_key(job.queue),
                    QUEUES,
                    batch_key(job.batch),
                    open_key(job.batch),
                ]
                add(keys, [job.id, int(bool(job.batch)), *self._fields(job)])
            for digest in {job.question for job in jobs}:
                pipe.expire(question_key(digest), QUESTION_S)
            return sum(map(int, pipe.execute()[: len(jobs)]))

    def _fields(self, job: ImageJob) -> Iterator[Any]:
        """The fields of the job's hash and their values, in RQ's form."""
        made = Job.create(
            WORK,
            kwargs=job.payload(),
            id=job.id,
            connection=self.connection.redis,
            serializer=JSONSerializer,
            result_ttl=job.keep_s,
            description=job.image_id[:100].encode("utf-8", "replace").decode(),
            origin=job.queue,
            status="queued",  # type: ignore[arg-type]  # the value of its enumeration
        )
        fields = made.to_dict() | {
            "enqueued_at": now_text(),
            "vlmbatch_scope": job.scope,
            # RQ's own tools return a job of a dead worker to its queue only if it has retries left
            "retries_left": 100,
        }
        for name, value in fields.items():
            if value != "":
                yield name
                yield value

    def known(self, job_ids: Sequence[str]) -> set[str]:
        """The jobs that add() would not change: they wait, are in progress, or have a result."""
        with self.connection.errors(), self.connection.redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(job_key(job_id), "status")
            found = pipe.execute()
        again = (None, b"canceled", b"failed")
        return {job_id for job_id, status in zip(job_ids, found, strict=True) if status not in again}

    def find(self, job_id: str) -> FoundJob | None:
        """The job with this id; None if there is none, or if it has expired."""
        return next(self.find_all([job_id]))

    def find_all(self, job_ids: Sequence[str]) -> Iterator[FoundJob | None]:
        """The jobs with these ids, in their order."""
        with self.connection.errors(), self.connection.redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(job_key(job_id), "status", "data")
                pipe.xrevrange(results_key(job_id), count=1)
            found = pipe.execute()
        for number, job_id in enumerate(job_ids):
            (status, data), results = found[2 * number : 2 * number + 2]
            yield None if status is None else _found(job_id, plain(status), data, results)

    def cancel(self, job: ImageJob, *, lets_started_go_on: bool = False, leaves_list: bool = False) -> str:
        """Cancel a job that has no result; returns its status before that, empty if it is gone.

        `leaves_list`: its id stays in the list of its queue, and workers skip it there.
        """
        keys = [
            job_key(job.id),
            queue_key(job.queue),
            started_key(job.queue),
            cancelled_key(job.queue),
            batch_key(job.batch),
            open_key(job.batch),
        ]
        args = [
            job.id,
            now_text(),
            CANCELLED_S,
            int(bool(job.batch)),
            int(lets_started_go_on),
            int(not leaves_list),
        ]
        with self.connection.errors():
            before = self.connection.script("cancel")(keys=keys, args=args)
        return before.decode() if before else ""

    def remove(self, job: ImageJob) -> None:
        """Remove a job that has ended, with its result; one without a result stays."""
        keys = [job_key(job.id), results_key(job.id), finished_key(job.queue), failed_key(job.queue)]
        with self.connection.errors():
            self.connection.script("remove")(keys=keys, args=[job.id])

    def counts(self) -> dict[str, int]:
        """How many jobs wait, are in progress, have a result, and could not be read by workers."""
        with self.connection.errors():
            queues = self._queues()
            now, _ = self.connection.redis.time()
            with self.connection.redis.pipeline(transaction=False) as pipe:
                for queue in queues:
                    pipe.llen(queue_key(queue))
                    pipe.zcard(started_key(queue))
                    pipe.zcount(finished_key(queue), now, "+inf")
                    pipe.zcount(failed_key(queue), now, "+inf")
                numbers = cast(list[int], pipe.execute())
        names = ("queued", "started", "finished", "failed")
        return {name: sum(numbers[place :: len(names)]) for place, name in enumerate(names)}

    def oldest_s(self) -> float:
        """For how many seconds the first job of the queues has waited; 0 if none waits."""
        with self.connection.errors():
            queues = self._queues()
            with self.connection.redis.pipeline(transaction=False) as pipe:
                for queue in queues:
                    pipe.lindex(queue_key(queue), 0)
                first = [plain(job_id) for job_id in pipe.execute() if job_id is not None]
            with self.connection.redis.pipeline(transaction=False) as pipe:
                for job_id in first:
                    pipe.hget(job_key(job_id), "enqueued_at")
                times = map(_time, pipe.execute())
                began = [each for each in times if each is not None]
            seconds, _ = self.connection.redis.time()
        return max((seconds - each for each in began), default=0.0)

    def _queues(self) -> list[str]:
        """The names of all queues of vlmbatch."""
        prefix = queue_key("vlmbatch:")
        keys = map(plain, self.connection.redis.smembers(QUEUES))
        start = len(queue_key(""))
        return sorted(key[start:] for key in keys if key.startswith(prefix))


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of at most CHUNK."""
    left = iter(items)
    while chunk := list(islice(left, CHUNK)):
        yield chunk


def queues_of(models: Sequence[str]) -> list[str]:
    """The queues of a worker whose model has these names, by priority: for its model and for any model."""
    return [queue_name(priority, model) for priority in PRIORITIES for model in (*models, "")]


def record_in(results: Sequence[Any]) -> Mapping[str, Any] | None:
    """The record in the newest entry of a stream of results, None if it has none."""
    for _entry, fields in results[:1]:
        try:
            record = strict_json.loads(base64.b64decode(fields[b"return_value"], validate=True))
        except (KeyError, ValueError, binascii.Error):
            return None
        if isinstance(record, dict):
            return record
    return None


def _found(job_id: str, status: str, data: bytes | None, results: Sequence[Any]) -> FoundJob:
    try:
        job = ImageJob.from_data(job_id, data or b"")
    except JobFormatError:
        job = None
    record = record_in(results) if status == "finished" else None
    known = _STATUS.get(status, "failed")
    if known == "complete" and (record is None or record.get("status") != "ok"):
        known = "failed"
    return FoundJob(id=job_id, status=known, job=job, record=record)


def _time(text: bytes | None) -> float | None:
    """The time that RQ wrote as this text; None for any other text."""
    try:
        return None if text is None else datetime.fromisoformat(plain(text)).timestamp()
    except ValueError:
        return None
