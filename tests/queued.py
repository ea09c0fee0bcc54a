"""Jobs with real images in a real queue, and real workers, for tests."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from command import start
from endpoint import Endpoint
from serving import picture
from waiting import until

from vlmbatch.config import RunConfig
from vlmbatch.config.job_queue import QueueOptions
from vlmbatch.jobs.job import ImageJob, JobImage, job_id_of
from vlmbatch.jobs.opening import Jobs
from vlmbatch.jobs.questions import digest_of, question_options

DAY = "2026-12-01"


def opened(url: str, store: Path) -> Jobs:
    """The queue at this URL with this store."""
    return Jobs.open(QueueOptions(queue=url, store=str(store)))


def enqueue(jobs: Jobs, numbers: Sequence[int], batch: str = "b", **fields: Any) -> list[ImageJob]:
    """Put a picture for each number into the store and the queue, as one batch."""
    options = question_options(RunConfig.of("-", prompt="What is this?"))
    digest = digest_of(options)
    jobs.queue.keep_question(digest, options)
    jobs.batches.begin(batch, digest)
    made = [_job(number, digest, batch, **fields) for number in numbers]
    for number, each in zip(numbers, made, strict=True):
        jobs.store.put(each.images[0].key, picture(number))
    jobs.queue.add(made)
    return made


def _job(number: int, digest: str, batch: str, **fields: Any) -> ImageJob:
    job_id = job_id_of(batch, number)
    image = JobImage(key=f"jobs/{DAY}/{job_id}/0", bytes=1000 + number, mtime=1.5)
    usual = {"question": digest, "keep_s": 3600, "batch": batch, "scope": batch, "images": (image,)}
    return ImageJob(id=job_id, image_id=f"photos/{number}.jpg", **(usual | fields))


@contextmanager
def working(
    url: str, store: Path, endpoint: Endpoint, log: Path, *args: str
) -> Iterator["subprocess.Popen[str]"]:
    """`vlmbatch worker` as a process of its own, once it takes jobs."""
    at = ("--backend", "ollama", "--base-url", endpoint.url, "--model", "tiny-vision")
    with log.open("w") as stderr:
        process = start(
            "worker", "--store", str(store), *at, *args, variables={"VLMBATCH_QUEUE": url}, stderr=stderr
        )
        try:
            until(lambda: re.search(r"using tiny-vision|run_started", log.read_text()) or process.poll())
            yield process
        finally:
            process.kill()
            process.wait()
