"""The job queue as the service uses it: opened when it is first needed, and in threads of its own."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

from vlmbatch.aio import threads
from vlmbatch.config.job_queue import QueueOptions
from vlmbatch.errors import (
    ConfigError,
    QueueAwayError,
    QueueFullError,
    ResourceError,
    StoreAwayError,
    VlmbatchError,
    resource_errors,
)
from vlmbatch.jobs.opening import Jobs
from vlmbatch.jobs.registration import workers
from vlmbatch.service.problems import Problem, out_of_resources
from vlmbatch.service.queue_metrics import QueueFacts

T = TypeVar("T")
THREADS = 16
"""A Redis that hangs blocks these threads, and no others."""
AWAY_S = 1.0
"""After Redis could not be reached, it is not asked for this many seconds."""
TOLD_S = 60.0
"""The log has the same reason again after this many seconds."""
FRESH_S = 1.0
"""The facts about the queue are used for this many seconds."""
PATIENCE_S = 0.5
"""How long, in seconds, /ready and /metrics wait for Redis: their clients may wait for only a second."""
CLOSE_S = 1.0
"""At the end, work in a thread may take so many seconds more."""


class QueueClient:
    """The job queue of a service. While it cannot be reached, requests that need it get a problem."""

    def __init__(self, options: QueueOptions, *, hides_reasons: bool, tell: Callable[[str], None]) -> None:
        """Does not connect yet.

        With `hides_reasons`, clients do not learn where the queue is. `tell` gets each reason for the log.
        """
        self._options = options
        self._hides_reasons = hides_reasons
        self._tell = tell
        self._jobs: Jobs | None = None
        self._opening = asyncio.Lock()
        self._threads = threads(THREADS, "queue")
        self._working: set[Future[Any]] = set()
        self._away: tuple[float, str] = (0.0, "")
        self._told: tuple[float, str] = (0.0, "")
        self._facts: tuple[float, asyncio.Task[QueueFacts]] | None = None
        self.batches_changed = asyncio.Event()
        """Set when a batch of OpenAI's form needs the service."""

    async def call(self, work: Callable[[Jobs], T]) -> T:
        """The result of `work` in a thread.

        Raises:
            Problem: the queue or its store is away, full or set up wrongly, or the machine is out of memory.
        """
        try:
            jobs = await self.opened()
            return await self._in_thread(partial(work, jobs))
        except QueueFullError as error:
            raise self._problem("queue_full", error) from error
        except (QueueAwayError, StoreAwayError, ConfigError) as error:
            raise self._problem("queue_away", error) from error
        except ResourceError as error:
            raise out_of_resources() from error

    async def opened(self) -> Jobs:
        """The open queue; raises a VlmbatchError if it cannot be opened now."""
        if self._jobs is None:
            async with self._opening:
                if self._jobs is None:
                    self._jobs = await self._in_thread(partial(Jobs.open, self._options))
        return self._jobs

    async def facts(self) -> QueueFacts:
        """The facts about the queue now; it never fails, and waits for PATIENCE_S at most."""
        now = time.monotonic()
        if self._facts is None or (self._facts[0] < now and self._facts[1].done()):
            self._facts = now + FRESH_S, asyncio.create_task(self._ask())
        asking = self._facts[1]
        await asyncio.wait((asking,), timeout=PATIENCE_S)
        return asking.result() if asking.done() else QueueFacts(reason="the job queue does not answer")

    async def aclose(self) -> None:
        """Close all connections."""
        if self._facts is not None:
            self._facts[1].cancel()
        self._threads.shutdown()
        await asyncio.to_thread(wait, self._working.copy(), CLOSE_S)
        if self._jobs is not None:
            with suppress(VlmbatchError):
                await asyncio.to_thread(self._jobs.close)

    async def _ask(self) -> QueueFacts:
        try:
            return await self.call(_facts_of)
        except Problem as problem:
            return QueueFacts(reason=problem.message)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        with resource_errors():
            future = self._threads.submit(self._unless_away, work)
        self._working.add(future)
        future.add_done_callback(self._working.discard)
        return await asyncio.wrap_future(future)

    def _unless_away(self, work: Callable[[], T]) -> T:
        """The result of `work`; just after Redis was away, its error. So hanging calls do not add up."""
        until, reason = self._away
        if time.monotonic() < until:
            raise QueueAwayError(reason)
        try:
            with resource_errors():
                return work()
        except QueueAwayError as error:
            self._away = time.monotonic() + AWAY_S, str(error)
            raise

    def _problem(self, kind: Literal["queue_away", "queue_full"], error: VlmbatchError) -> Problem:
        """The problem that a client gets; the log has the reason."""
        reason, now = str(error), time.monotonic()
        if reason != self._told[1] or now >= self._told[0] + TOLD_S:
            self._told = now, reason
            self._tell(reason)
        if not self._hides_reasons:
            return Problem(kind, reason)
        state = "takes no more jobs" if kind == "queue_full" else "cannot be used"
        return Problem(
            kind,
            f"the job queue of the service {state} now; try again later, or ask the operator of the service",
        )


def _facts_of(jobs: Jobs) -> QueueFacts:
    return QueueFacts(
        jobs=jobs.queue.counts(),
        oldest_s=jobs.queue.oldest_s(),
        workers=len(workers(jobs.queue.connection)),
    )
