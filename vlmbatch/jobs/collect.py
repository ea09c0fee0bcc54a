"""Collects the records of a batch. A record leaves Redis only when it is on the disk."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from vlmbatch.config import RunConfig
from vlmbatch.config.spec import redact_place
from vlmbatch.errors import ConfigError, VlmbatchError
from vlmbatch.events import Event, ImageFinished, ImagesSkipped, RunFinished, RunStarted, TotalKnown, tell
from vlmbatch.jobs.batch_lock import BatchLock
from vlmbatch.jobs.batches import Batches, BatchState
from vlmbatch.jobs.bounded_retry import BoundedRetry, pause
from vlmbatch.jobs.job_queue import FoundJob, JobQueue
from vlmbatch.jobs.opening import queue_url, worker_command
from vlmbatch.jobs.record_sink import RecordSink
from vlmbatch.jobs.registration import workers
from vlmbatch.pipeline.run_statistics import RunStatistics
from vlmbatch.pipeline.stored import result_of
from vlmbatch.protocols import Observer
from vlmbatch.records import Endpoint, Result, Summary

POLL_S = 1.0
"""The pause, in seconds, before a batch without a new result is read again."""
LOST_S = 15.0
"""After so many seconds without a new result, jobs are looked for that Redis has lost."""
START_S = 5.0
MIDDLE_S = 900.0
"""How long, in seconds, a collection waits for a Redis that cannot be reached: at the start, and later."""
SHOWN_NAMES = 10


class LostJobs(VlmbatchError):
    """Redis has lost jobs of a batch; all others are collected."""

    exit_code = 3


class Collection:
    """The collection of a batch: iterate over it once, with ``async for``.

    Each item is a Result that is written and no longer in Redis. After the last one, `summary` says how the
    collection ended. It ends when all results are collected, or without `waits` when none is ready.
    """

    def __init__(
        self, config: RunConfig, observers: Sequence[Observer], *, waits: bool = True, poll_s: float = POLL_S
    ) -> None:
        self.summary: Summary | None = None
        """How the collection ended; None before that, and if there was no result."""
        self._config = config
        self._name = config.jobs.batch
        self._observers = tuple(observers)
        self._waits = waits
        self._poll_s = poll_s
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._place = redact_place(config.jobs.queue or "")
        self._retry = BoundedRetry(
            self._place,
            self._notify,
            self._stop,
            patience_s=config.run.patience_s(START_S),
            try_every_s=poll_s,
        )
        self._sink = RecordSink(config.output)
        self._statistics = RunStatistics()
        self._queue: JobQueue
        self._batches: Batches
        self._first: BatchState | None = None
        self._told = (0, 0)
        self._still_open = (0, 0.0)
        """How many jobs are open, and since when it is this number."""
        self._lost = self._failed = self._failed_now = 0
        self._is_whole = False
        self._has_looked = False

    def stop(self) -> None:
        """End once the records that were read are written; may be called in any thread."""
        if self._loop is None:
            self._stop.set()
        else:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def __aiter__(self) -> AsyncGenerator[Result, None]:
        """Collect, and yield each result once it is written.

        Raises:
            ConfigError: there is no such batch, or the output has records of other settings.
            LockedError: another program collects the batch, or writes to the output.
            OutputError, OutputClosed: a record could not be written; it stays in Redis.
            QueueAwayError: Redis was away for too long.
            LostJobs: Redis has lost jobs.
        """
        self._loop = asyncio.get_running_loop()
        url = queue_url(self._config.jobs)
        queue = await self._retry.call(lambda: JobQueue.open(url))
        if queue is None:
            return
        self._queue, self._batches = queue, Batches(queue)
        self._retry.patience_s = self._config.run.patience_s(MIDDLE_S)
        try:
            await self._look()
            role = BatchLock(self._batches, self._name, "collect")
            async with role, self._sink, aclosing(self._results()) as results:
                await self._drop_lost()
                async for result in results:
                    yield result
        finally:
            queue.close()
        if self._lost:
            raise LostJobs(
                f"the Redis at {self._place} has lost {self._lost} images of the batch {self._name}; type "
                "the same vlmbatch enqueue with -o FILE to add them again"
            )

    async def _results(self) -> AsyncGenerator[Result, None]:
        """All results once the first one is there, between RunStarted and RunFinished."""
        state = await self._begun()
        if state is None:
            return
        await self._start(state)
        try:
            while found := await self._next():
                for result in await self._taken(found):
                    self._notify(ImageFinished(result=result))
                    yield result
        finally:
            self._finish(state)

    async def _begun(self) -> BatchState | None:
        """The batch, once it has a result; None if the collection ends before."""
        while (state := await self._look()) is not None:
            if state.run is not None or state.ready:
                return state
            if state.is_done:
                tell(self._notify, f"the batch {self._name} has no images")
                self.summary = Summary()
                return None
            if not self._waits:
                await self._tell_without_workers()
                tell(self._notify, f"none of the {state.open} images of the batch {self._name} is done yet")
                return None
            await self._rest(state)
        return None

    async def _start(self, state: BatchState) -> None:
        """Open the output, and say so."""
        run, settings = state.run, state.settings
        if run is None or settings is None:
            run, settings = await self._fingerprint()
        for notice in await self._sink.begin(run, settings):
            tell(self._notify, notice)
        endpoint = Endpoint(backend="queue", url=self._place, model=str(settings.get("model")))
        self._notify(RunStarted(endpoint=endpoint, run=run, concurrency=0, output=self._config.output.output))

    async def _fingerprint(self) -> tuple[str, Mapping[str, Any]]:
        """The fingerprint of the first record; the batch has none if no worker could use its question."""
        found = await self._retry.call(lambda: self._batches.ready(self._name, 1))
        records = [each.record for _, each in found or () if each is not None and each.record is not None]
        record = records[0] if records else {}
        return str(record.get("run")), {"model": record.get("model")}

    async def _next(self) -> list[tuple[str, FoundJob | None]] | None:
        """The next finished jobs; None at the end."""
        while not self._stop.is_set():
            found = await self._retry.call(lambda: self._batches.ready(self._name))
            if found:
                return found
            state = await self._look()
            if state is None:
                return None
            if state.is_done or not (self._waits or state.ready):
                self._is_whole = state.is_done
                return None
            if not state.ready:
                await self._rest(state)
        return None

    async def _taken(self, found: Sequence[tuple[str, FoundJob | None]]) -> list[Result]:
        """Write these results, and remove their jobs from Redis; returns those that are new in the output."""
        results = [self._result(each) for _, each in found]
        new = await self._sink.write([result for result in results if result is not None])
        await self._retry.call(lambda: self._batches.forget(self._name, [job_id for job_id, _ in found]))
        self._lost += results.count(None)
        for result in new:
            self._statistics.add(result)
            self._failed_now += not result.ok
        return new

    def _result(self, found: FoundJob | None) -> Result | None:
        """The result of a job; None if Redis has lost it, or another program has changed it."""
        if found is None or found.record is None:
            return None
        try:
            result = result_of(found.record)
        except ValueError:
            return None
        # a failure of a job that no worker could read has no fingerprint of its own
        return result if result.run == self._sink.run else replace(result, run=self._sink.run)

    async def _look(self) -> BatchState | None:
        """The batch now; None if `stop` was set while Redis was away.

        Raises:
            ConfigError: there is no such batch, or it was started again with another question.
        """
        found = await self._retry.call(lambda: (self._batches.state(self._name), 0))
        if found is None:
            return None
        state, _ = found
        if state is None or not state.question:
            raise await self._no_batch(state)
        if self._first is None:
            self._first = state
        if (state.question, state.model) != (self._first.question, self._first.model):
            raise ConfigError(
                f"the batch {self._name} was started again with another question; run the same command with "
                "another --output"
            )
        self._failed = state.failed
        self._tell_counts(state, self._first)
        return state

    async def _no_batch(self, state: BatchState | None) -> ConfigError:
        if state is not None:
            return ConfigError(
                f"the batch {self._name} belongs to the service; get its results from /v1/batches, or name "
                "another batch with --batch"
            )
        names = await asyncio.to_thread(self._batches.names)
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        there = f"there are {', '.join(names[:SHOWN_NAMES])}{more}" if names else "there is none"
        return ConfigError(
            f"the queue at {self._place} has no batch {self._name}: {there}; add images with vlmbatch "
            "enqueue, or name a batch with --batch"
        )

    def _tell_counts(self, state: BatchState, first: BatchState) -> None:
        """Tell how many images the batch has, and how many were collected before."""
        total = state.total - state.cancelled
        counts = total, self._skipped(first)
        if counts != self._told:
            self._told = counts
            self._notify(TotalKnown(total=total))
            self._notify(ImagesSkipped(skipped=counts[1]))

    def _skipped(self, first: BatchState) -> int:
        """How many images were collected before, or are in the output for another reason."""
        return first.succeeded + first.failed - first.ready + self._sink.skipped

    async def _rest(self, state: BatchState) -> None:
        """Wait a moment; the first time, say so if no worker is running."""
        if state.open and not self._has_looked:
            self._has_looked = True
            await self._tell_without_workers()
        count, since = self._still_open
        if state.open != count:
            self._still_open = state.open, time.monotonic()
        elif time.monotonic() - since >= LOST_S:
            await self._drop_lost()
            self._still_open = 0, 0.0
        await pause(self._stop, self._poll_s)

    async def _drop_lost(self) -> None:
        """Count the open jobs that Redis has lost: there will be no result of them."""
        self._lost += await self._retry.call(lambda: self._batches.drop_lost(self._name)) or 0

    async def _tell_without_workers(self) -> None:
        at_work = await self._retry.call(lambda: workers(self._queue.connection))
        if at_work == []:
            command = worker_command(self._config)
            tell(self._notify, f"no worker is running for this queue; start one with: {command}")

    def _finish(self, first: BatchState) -> None:
        skipped = self._skipped(first)
        failed_before = min(skipped, self._failed - self._failed_now) if self._is_whole else 0
        self.summary = self._statistics.summary(
            skipped=skipped - failed_before,
            failed_before=failed_before,
            stopped=not self._is_whole,
        )
        self._notify(RunFinished(summary=self.summary))

    def _notify(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)
