"""A worker for tests of the queue: it does what it is told, when it is told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from written_results import answered

from vlmbatch.config.job_queue import QueueOptions
from vlmbatch.jobs.claims import Claim, Claims
from vlmbatch.jobs.job_queue import queues_of
from vlmbatch.jobs.opening import Jobs
from vlmbatch.records import Result


class StubWorker:
    """Claims jobs of any model of `models`, and gives them results."""

    def __init__(self, url: str, store: Path, models: tuple[str, ...] = ("tiny-vision",)) -> None:
        self.jobs = Jobs.open(QueueOptions(queue=url, store=str(store)))
        self._claims = Claims(self.jobs.queue.connection, "stub", queues_of(models), lambda told: None)

    def claim(self, most: int = 1) -> list[Claim]:
        """The next jobs."""
        return self._claims.claim(most)

    def question(self, claim: Claim) -> Mapping[str, Any]:
        """The options of the question of this job."""
        options = self._claims.question(claim.job.question)
        assert options is not None
        return options

    def image(self, claim: Claim) -> bytes:
        """The image of this job."""
        return self.jobs.store.read(claim.job.images[0].key, max_bytes=1_000_000)

    def finish(self, claim: Claim, result: Result | None = None) -> bool:
        """Give the job this result, or an answer; whether it is the first one."""
        record = (result or answered(claim.job.image_id)).to_record()
        (first,) = self._claims.finish([(claim, record)])
        return first

    def close(self) -> None:
        """Close all connections."""
        self.jobs.close()
