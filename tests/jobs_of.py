"""Jobs and records for tests of the queue."""

from collections.abc import Iterable
from typing import Any

from vlmbatch.jobs.claims import Claim, Claims
from vlmbatch.jobs.job import ImageJob, JobImage, job_id_of
from vlmbatch.jobs.job_queue import JobQueue, queues_of
from vlmbatch.jobs.names import started_key

QUESTION = "d" * 32


def job(name: str, **fields: Any) -> ImageJob:
    """A job about the image of this name."""
    images = (JobImage(key=f"at/{name}", bytes=3, mtime=1.5),)
    usual = {"images": images, "question": QUESTION, "keep_s": 3600}
    return ImageJob(id=job_id_of(name), image_id=name, **(usual | fields))


def record(name: str, status: str = "ok") -> dict[str, Any]:
    """A short stand-in for the record of this image."""
    return {"v": 1, "id": name, "status": status}


def claims_of(queue: JobQueue, worker: str = "one", told: list[str] | None = None) -> Claims:
    """The claims of a worker with the model `m`."""
    return Claims(queue.connection, worker, queues_of(["m"]), (told if told is not None else []).append)


def names(claims: Iterable[Claim]) -> list[str]:
    """The images of these jobs."""
    return [claim.job.image_id for claim in claims]


def end_leases(queue: JobQueue, claims: Iterable[Claim]) -> None:
    """Let the leases of these jobs be over, as if their worker had died a minute ago."""
    for claim in claims:
        queue.connection.redis.zadd(started_key(claim.queue), {f"{claim.job.id}:{claim.lease}": 1.0})
