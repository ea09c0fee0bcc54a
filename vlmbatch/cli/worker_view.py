"""`vlmbatch worker`: opens the session and the queue, works, and says what happens."""

import asyncio
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmbatch import system
from vlmbatch.cli.command_run import DESCRIPTORS, SWITCH_S
from vlmbatch.cli.console import Console
from vlmbatch.cli.reports import open_reports
from vlmbatch.cli.signals import Reports, run_until_signal
from vlmbatch.config import RunConfig
from vlmbatch.events import Event, ImageFinished, RunFinished, RunStarted
from vlmbatch.observers import JsonLog, Lines
from vlmbatch.observers.notices import Notices
from vlmbatch.pipeline.run_statistics import RunStatistics
from vlmbatch.pipeline.session import Session
from vlmbatch.protocols import Observer
from vlmbatch.records import Summary

if TYPE_CHECKING:
    from vlmbatch.jobs.opening import Jobs

PATIENCE_S = 15.0
"""How long, in seconds, a job waits for an endpoint that is down, before it goes back to the queue."""


def show(config: RunConfig, *, until_empty: bool) -> int:
    """Work until a signal, or until the queue is empty; returns the exit code."""
    console = Console(config.display)
    system.allow_files(DESCRIPTORS)
    sys.setswitchinterval(SWITCH_S)
    reports = Reports(console.say)

    async def work() -> int:
        reports.open.extend(open_reports(config, console.say))
        with ExitStack() as stack:
            shown = _shown(config, console, stack)
            await WorkerRun(config, [shown, *reports.open]).run(until_empty=until_empty)
        return 0

    return reports.end(run_until_signal(work, console), None)


class WorkerRun:
    """The work of one worker, with what its observers learn about it."""

    def __init__(self, config: RunConfig, observers: list[Observer]) -> None:
        self._config = config
        self._observers = observers
        self._statistics = RunStatistics()

    async def run(self, *, until_empty: bool) -> None:
        """Work until this task is cancelled, or until the queue is empty.

        Raises:
            VlmbatchError: the queue, the store or the endpoint cannot be used.
        """
        from vlmbatch.jobs.opening import Jobs
        from vlmbatch.pipeline.session import opened

        config = self._config
        patient = replace(config.run, give_up_after=config.run.patience_s(PATIENCE_S))
        jobs = await asyncio.to_thread(Jobs.open, config.jobs)
        try:
            async with opened(replace(config, run=patient), self._notify) as session:
                await self._work(session, jobs, until_empty=until_empty)
        finally:
            await asyncio.to_thread(jobs.close)

    async def _work(self, session: Session, jobs: "Jobs", *, until_empty: bool) -> None:
        from vlmbatch.jobs.job_queue import queues_of
        from vlmbatch.jobs.registration import RegisteredWorker
        from vlmbatch.jobs.worker import Worker

        model = session.endpoint.model
        names = [name for name in dict.fromkeys((model, self._config.endpoint.model)) if name]
        registered = await asyncio.to_thread(RegisteredWorker, jobs.queue.connection, queues_of(names), model)
        worker = Worker(session, jobs, registered, self._notify, ends_when_empty=until_empty)
        place = f"the queue at {jobs.queue.connection.place}"
        pool = session.supervisor.pool
        adapts = self._config.run.concurrency is None
        endpoint = session.endpoint
        self._notify(
            RunStarted(endpoint=endpoint, run="", concurrency=pool.limit, output=place, adapts=adapts)
        )
        is_whole = False
        try:
            await worker.run()
            is_whole = True
        finally:
            self._notify(RunFinished(summary=self._summary(session, is_whole=is_whole)))

    def _summary(self, session: Session, *, is_whole: bool) -> Summary:
        summary = self._statistics.summary(
            stopped=not is_whole,
            endpoints=session.supervisor.endpoints,
            cost=session.budget.spent,
        )
        # a finished run without an image has another message
        return replace(summary, stopped=summary.stopped or not summary.total)

    def _notify(self, event: Event) -> None:
        if isinstance(event, ImageFinished):
            self._statistics.add(event.result)
        for observer in self._observers:
            observer(event)


def _shown(config: RunConfig, console: Console, stack: ExitStack) -> Observer:
    """The observer that prints on standard error."""
    if config.display.log_json:
        return JsonLog(console.stream)
    if not config.display.quiet:
        return stack.enter_context(Lines(console.stream, verbose=config.display.verbose))
    notices = Notices()

    def say(event: Event) -> None:
        for notice in notices.of(event):
            console.say(notice)

    return say
