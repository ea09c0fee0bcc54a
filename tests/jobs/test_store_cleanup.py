"""What a worker deletes from the store."""

from dataclasses import replace
from pathlib import Path

import pytest
from jobs_of import job

from vlmbatch.jobs.batches import Batches
from vlmbatch.jobs.job import JobImage
from vlmbatch.jobs.job_queue import JobQueue
from vlmbatch.jobs.opening import Jobs
from vlmbatch.jobs.store import Store
from vlmbatch.jobs.store_cleanup import GRACE_S, StoreCleanup

pytestmark = pytest.mark.long


def test_a_planted_key_stops_no_cleanup(queue: JobQueue, tmp_path: Path) -> None:
    """A job with a key outside the store ends no worker, and the copies of the next job are deleted."""
    store = Store.open(str(tmp_path / "store"))
    secret, key = tmp_path / "secret", "jobs/2026-12-01/good/0"
    secret.write_bytes(b"s")
    store.put(key, b"x")
    now = 0.0
    cleanup = StoreCleanup(Jobs(queue=queue, batches=Batches(queue), store=store), clock=lambda: now)
    for each in ("jobs/../../secret", key):
        cleanup.finished(replace(job("a"), images=(JobImage(key=each),)))
    cleanup.delete_copies()
    assert store.size(key) is not None
    now = GRACE_S
    cleanup.delete_copies()
    assert (secret.exists(), store.size(key)) == (True, None)
