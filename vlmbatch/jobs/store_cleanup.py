"""Deletes images from the store that no job needs any more. All calls block."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from vlmbatch.errors import ImageError
from vlmbatch.jobs.job import ImageJob
from vlmbatch.jobs.job_queue import chunks
from vlmbatch.jobs.opening import Jobs

GRACE_S = 60.0
"""Copies are kept so many seconds after the result: a Redis that crashes may lose its last second."""
KEPT_DAYS = 1
"""Copies without a job are kept for this many days, since their job may be added soon."""
EVERY_S = 3600.0


class StoreCleanup:
    """The images that one worker deletes."""

    def __init__(self, jobs: Jobs, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs = jobs
        self._clock = clock
        self._due: deque[tuple[float, str]] = deque()
        self._next_sweep = clock()

    def finished(self, job: ImageJob) -> None:
        """The job has its result: its copies are deleted later."""
        self._due.extend((self._clock() + GRACE_S, key) for key in job.copies)

    def delete_copies(self) -> None:
        """Delete the copies whose time has come; raises StoreAwayError."""
        while self._due and self._due[0][0] <= self._clock():
            with suppress(ImageError):  # a key from another program, or a link in the store: not ours
                self._jobs.store.delete(self._due[0][1])
            self._due.popleft()

    def delete_orphans(self) -> None:
        """Once an hour, delete old copies whose jobs are over, for example since their worker died.

        Raises StoreAwayError and QueueAwayError.
        """
        if self._clock() < self._next_sweep:
            return
        self._next_sweep = self._clock() + EVERY_S
        newest = (datetime.now(UTC) - timedelta(days=KEPT_DAYS)).date().isoformat()
        for day in self._jobs.store.days():
            if day < newest:
                with suppress(ImageError):  # a link in the store
                    self._delete_orphans_of(day)
                    self._jobs.store.delete_day_if_empty(day)

    def _delete_orphans_of(self, day: str) -> None:
        for chunk in chunks(self._jobs.store.jobs_of(day)):
            found = self._jobs.queue.find_all([job_id for job_id, _ in chunk])
            for (_, key), job in zip(chunk, found, strict=True):
                if job is None or job.status not in ("pending", "started"):
                    self._jobs.store.delete(key)
