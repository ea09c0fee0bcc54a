"""Moves each batch to its next state, as a task of a service. Only one service at a time works on a batch."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from vlmbatch.errors import ImageError
from vlmbatch.jobs.batches import HOLD_S
from vlmbatch.service.batch_api.batch_index import BatchIndex, StoredBatch
from vlmbatch.service.batch_api.expansion import Expansion
from vlmbatch.service.batch_api.file_index import FileIndex
from vlmbatch.service.batch_api.outcome import remove_jobs, write_outcome
from vlmbatch.service.problems import Problem

if TYPE_CHECKING:
    from vlmbatch.jobs.opening import Jobs
    from vlmbatch.service.queue_client import QueueClient
    from vlmbatch.service.service import Service

PERIOD_S = 3.0
"""The service looks at all batches this often."""
MOST_AT_ONCE = 4
"""The most batches that a service works on at once."""
LONGEST_PAUSE_S = 60.0
"""After failures the service waits up to this long before it tries a batch again."""
SWEEP_S = 3600.0
"""Old files are deleted this often."""
GRACE_S = 60.0
"""Jobs are kept so many seconds after the end of their batch: Redis may lose its last second in a crash."""
ROLE = "keep"


@asynccontextmanager
async def kept(service: "Service", queue: "QueueClient") -> AsyncIterator[None]:
    """Work on the batches inside the ``async with``."""
    reconciling = asyncio.create_task(Reconciler(service, queue).run())
    try:
        yield
    finally:
        reconciling.cancel()
        await asyncio.wait((reconciling,))


class Reconciler:
    """The part of a service that works on batches while no client waits."""

    def __init__(self, service: "Service", queue: "QueueClient") -> None:
        """`queue` is the queue of the service."""
        self._service = service
        self._queue = queue
        self._token = uuid.uuid4().hex
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, tuple[float, float]] = {}
        """For each batch that could not go on, how long it waits in seconds, and until when."""
        self._open: dict[str, int] = {}
        """How many open jobs each batch had at the last look."""
        self._next_sweep = time.monotonic()

    async def run(self) -> None:
        """Work until the task is cancelled."""
        try:
            while True:
                self._queue.batches_changed.clear()
                await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD_S):
                        await self._queue.batches_changed.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks.values())

    async def _look(self) -> None:
        """Start the work on each batch that needs it."""
        try:
            batches = await self._queue.call(self._due)
        except Problem:  # the queue logs it
            return
        except Exception as error:  # noqa: BLE001  # reported as a bug; the other batches must go on
            self._service.bugs.caught(error, "the batches")
            return
        now = time.monotonic()
        for batch in batches:
            _, until = self._pauses.get(batch.id, (0.0, 0.0))
            if batch.id not in self._tasks and until <= now:
                self._tasks[batch.id] = asyncio.create_task(self._work(batch.id))

    def _due(self, jobs: "Jobs") -> list[StoredBatch]:
        """The batches that a service must work on now."""
        if time.monotonic() >= self._next_sweep:
            FileIndex(jobs).delete_expired()
            self._next_sweep = time.monotonic() + SWEEP_S
        batches = list(BatchIndex(jobs).unfinished())
        before, self._open = (
            self._open,
            {each.id: each.jobs.open for each in batches if each.jobs is not None},
        )
        for batch_id in self._open.keys() & before.keys():
            if self._open[batch_id] == before[batch_id] > 0:  # perhaps Redis has lost them
                jobs.batches.drop_lost(batch_id)
        return [batch for batch in batches if _is_due(batch)]

    async def _work(self, batch_id: str) -> None:
        try:
            async with self._places, self._held(batch_id) as is_mine:
                if is_mine:
                    await self._advance(batch_id)
        except Problem:  # the queue logs it
            self._pause(batch_id)
        except Exception as error:  # noqa: BLE001  # reported as a bug; the other batches must go on
            self._service.bugs.caught(error, f"batch {batch_id}")
            self._pause(batch_id)
        else:
            self._pauses.pop(batch_id, None)
        finally:
            del self._tasks[batch_id]

    async def _advance(self, batch_id: str) -> None:
        """Move the batch to the last state that it can reach now."""
        try:
            batch = await self._queue.call(lambda jobs: BatchIndex(jobs).load(batch_id))
            if batch is not None and batch.has_ended:
                await remove_jobs(self._queue, batch)
                return
            if batch is not None and batch.plan is None:
                await Expansion(self._service, self._queue, batch).run()
            batch = await self._queue.call(lambda jobs: _without_jobs(jobs, batch_id))
            if batch is not None:
                await write_outcome(self._queue, batch)
        except ImageError as error:  # a file is gone
            told = {"code": "file_gone", "line": None, "message": str(error), "param": None}
            await self._queue.call(lambda jobs: _give_up(jobs, batch_id, told))

    @asynccontextmanager
    async def _held(self, batch_id: str) -> AsyncIterator[bool]:
        """Whether this service may work on the batch inside the ``async with``."""

        def hold(jobs: "Jobs") -> bool:
            return jobs.batches.hold(batch_id, ROLE, self._token)

        async def keep() -> None:
            while True:
                await asyncio.sleep(HOLD_S / 3)
                with suppress(Problem):  # the work itself meets the same problem
                    await self._queue.call(hold)

        if not await self._queue.call(hold):
            yield False
            return
        keeping = asyncio.create_task(keep())
        try:
            yield True
        finally:
            keeping.cancel()
            with suppress(Problem):  # then its time ends by itself
                await self._queue.call(lambda jobs: jobs.batches.free(batch_id, ROLE, self._token))

    def _pause(self, batch_id: str) -> None:
        pause, _ = self._pauses.get(batch_id, (PERIOD_S / 2, 0.0))
        pause = min(2 * pause, LONGEST_PAUSE_S)
        self._pauses[batch_id] = pause, time.monotonic() + pause


def _is_due(batch: StoredBatch) -> bool:
    """Whether a service must work on this batch now."""
    if batch.has_ended:
        return batch.ended_s >= GRACE_S
    return batch.status != "in_progress" or batch.is_answered


def _without_jobs(jobs: "Jobs", batch_id: str) -> StoredBatch | None:
    """The batch, if all its jobs have ended. If it is cancelled, first cancel the jobs that wait."""
    batch = BatchIndex(jobs).load(batch_id)
    if batch is None or batch.plan is None:
        return None
    if batch.is_cancelled:
        jobs.batches.cancel(batch_id)
    state = jobs.batches.state(batch_id)
    return None if state is not None and state.open else batch


def _give_up(jobs: "Jobs", batch_id: str, told: Mapping[str, Any]) -> None:
    """End a batch whose input or plan is gone."""
    index = BatchIndex(jobs)
    batch = index.load(batch_id)
    if batch is not None and batch.has_ended:
        index.end(batch)
    elif batch is not None:
        index.fail(batch_id, [told])
