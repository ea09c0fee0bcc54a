"""The queue, for workers: jobs are claimed under a lease, and get their first result. All calls block."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from vlmbatch import strict_json
from vlmbatch.errors import ConfigError
from vlmbatch.jobs.connection import Connection
from vlmbatch.jobs.job import ImageJob, JobFormatError
from vlmbatch.jobs.names import (
    JOB,
    batch_key,
    done_key,
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

LEASE_S = 60
"""A worker that does not extend a lease for this many seconds is dead, and its job goes back to the queue."""
MOST_DEATHS = 3
"""A job whose workers died this many times gets a failure."""
UNREADABLE_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that a worker has, and its lease. `queue` is the queue that it came from."""

    job: ImageJob
    lease: str
    queue: str

    @property
    def _keys(self) -> tuple[str, str]:
        return job_key(self.job.id), started_key(self.queue)


class Claims:
    """The claims of one worker."""

    def __init__(
        self, connection: Connection, worker: str, queues: Sequence[str], tell: Callable[[str], object]
    ) -> None:
        """`worker` is its name, `queues` are its queues in their order, and `tell` gets messages."""
        self._connection = connection
        self._worker = worker
        self._queues = list(queues)
        self._tell = tell

    def claim(self, most: int) -> list[Claim]:
        """Up to `most` jobs from the front of the queues; none only if no job waits that can be read.

        Raises:
            ConfigError: a newer version of vlmbatch has written a job; that job is in the queue again.
            QueueAwayError, QueueFullError: no job was claimed, or its lease will end by itself.
        """
        keys = [*map(queue_key, self._queues), *map(started_key, self._queues)]
        claims: list[Claim] = []
        found: list[Any] | None = None
        while found != [] and not claims:  # else all of them were set aside
            args = [most, LEASE_S, JOB, self._worker, now_text(), uuid4().hex]
            with self._connection.errors():
                found = self._connection.script("claim")(keys=keys, args=args)
            claims = self._readable(found or [])
        return claims

    def _readable(self, found: Sequence[Any]) -> list[Claim]:
        """The claims of these jobs; those that are not from vlmbatch are set aside."""
        claims, newer = [], []
        for job_id, lease, queue, data in found:
            place = (plain(job_id), plain(lease), self._queues[queue])
            try:
                claims.append(_claim(*place, data))
            except JobFormatError as error:
                if error.is_newer:
                    newer.append(place)
                else:
                    self._quarantine(*place, error)
        if newer:
            self.release(claims)
            for place in reversed(newer):
                self._release(*place)
            raise ConfigError(
                "the queue has jobs of a newer version of vlmbatch; update vlmbatch for this worker, and "
                "start it again"
            )
        return claims

    def finish(self, done: Sequence[tuple[Claim, Mapping[str, Any]]]) -> list[bool]:
        """Store the records of these jobs; for each one, whether it is the first result of its job."""
        with self._connection.errors(), self._connection.redis.pipeline(transaction=False) as pipe:
            finish = self._connection.script("finish", client=pipe)
            for claim, record in done:
                job, (key, started) = claim.job, claim._keys
                keys = [
                    key,
                    results_key(job.id),
                    started,
                    finished_key(claim.queue),
                    batch_key(job.batch),
                    open_key(job.batch),
                    done_key(job.batch),
                ]
                value = base64.b64encode(json.dumps(record, separators=(",", ":")).encode())
                count = "succeeded" if record["status"] == "ok" else "failed"
                args = [
                    job.id,
                    claim.lease,
                    value,
                    self._worker,
                    now_text(),
                    job.keep_s,
                    int(bool(job.batch)),
                    count,
                ]
                finish(keys, args)
            return [bool(each) for each in pipe.execute()]

    def release(self, claims: Sequence[Claim]) -> None:
        """Return these jobs to the front of their queues, in their order."""
        for claim in reversed(claims):
            self._release(claim.job.id, claim.lease, claim.queue)

    def extend(self, claims: Sequence[Claim]) -> set[str]:
        """Make the leases longer; returns the ids of the jobs that were cancelled or that others have."""
        if not claims:
            return set()
        keys = [claim._keys[place] for place in (0, 1) for claim in claims]
        leases = [part for claim in claims for part in (claim.job.id, claim.lease)]
        with self._connection.errors():
            lost = self._connection.script("extend")(keys=keys, args=[LEASE_S, now_text(), *leases])
        return {plain(job_id) for job_id in lost}

    def reclaim(self) -> list[Claim]:
        """Return jobs of dead workers to their queues; the result has jobs whose workers died too often."""
        dead = []
        for queue in self._queues:
            with self._connection.errors():
                found = self._connection.script("reclaim")(
                    keys=[queue_key(queue), started_key(queue)], args=[MOST_DEATHS, JOB, LEASE_S]
                )
            for job_id, lease, data in found:
                place = (plain(job_id), plain(lease), queue)
                try:
                    dead.append(_claim(*place, data))
                except JobFormatError as error:
                    self._quarantine(*place, error)
        return dead

    def question(self, digest: str) -> Mapping[str, Any] | None:
        """The options of the question with this digest; None if Redis does not have it."""
        with self._connection.errors():
            text = self._connection.redis.get(question_key(digest))
        try:
            options = None if text is None else strict_json.loads(text)
        except ValueError:
            return None
        return options if isinstance(options, dict) else None

    def name_run(
        self, batch: str, question: str, run: str, settings: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """The fingerprint and the settings of the batch's records: those of its first worker."""
        with self._connection.errors():
            named, text = self._connection.script("name_run")(
                keys=[batch_key(batch)], args=[question, run, json.dumps(settings)]
            )
        return named.decode(), json.loads(text)

    def _release(self, job_id: str, lease: str, queue: str) -> None:
        keys = [job_key(job_id), queue_key(queue), started_key(queue)]
        with self._connection.errors():
            self._connection.script("release")(keys=keys, args=[job_id, lease])

    def _quarantine(self, job_id: str, lease: str, queue: str, error: JobFormatError) -> None:
        """Move a job that no worker can read to RQ's registry of failed jobs."""
        keys = [job_key(job_id), started_key(queue), failed_key(queue)]
        why = f"vlmbatch cannot read this job: {error}"
        with self._connection.errors():
            self._connection.script("fail")(
                keys=keys,
                args=[job_id, lease, why, now_text(), UNREADABLE_S],
            )
        self._tell(f"the job {job_id} is not from vlmbatch, and is now a failed job: {error}")


def _claim(job_id: str, lease: str, queue: str, data: bytes) -> Claim:
    return Claim(job=ImageJob.from_data(job_id, data or b""), lease=lease, queue=queue)
