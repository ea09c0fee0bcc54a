"""From a RunConfig to source, backend, writer and guards, and one run over them; names the concrete parts."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from vlmbatch import imaging
from vlmbatch.asking import Asker, Job
from vlmbatch.availability import RUN_PATIENCE_S, START_PATIENCE_S, Availability, until_available
from vlmbatch.backends import open_backend
from vlmbatch.config import ImageOptions, RunConfig
from vlmbatch.errors import VlmbatchError
from vlmbatch.limiter import Limiter
from vlmbatch.pipeline import Parts, Pipeline
from vlmbatch.prompts import prompt_text
from vlmbatch.protocols import Backend, Observer, Source, Writer
from vlmbatch.records import (
    Endpoint,
    PreparedImage,
    Request,
    Result,
    RunFinished,
    RunStarted,
    SourceProblem,
    Summary,
    TotalKnown,
    Usage,
)
from vlmbatch.retry import RetryPolicy
from vlmbatch.sources import open_source
from vlmbatch.writers import JsonlWriter, StreamWriter

PREPARERS = max(2, os.cpu_count() or 1)
"""Threads that prepare pictures, and how many are prepared ahead of the requests."""

Deliver = Callable[[Result], Awaitable[None]]


async def run(
    config: RunConfig, *, deliver: Deliver, notify: Observer, stop: asyncio.Event, stdout: bool
) -> None:
    """One run. `deliver` gets each result once it is written; setting `stop` ends it early.

    Raises:
        VlmbatchError: what ends a whole run; its class tells the exit code.
    """
    prompt = prompt_text(config.prompt)
    source = open_source(config.paths, config.input, partial(_tell_loop, asyncio.get_running_loop(), notify))
    async with AsyncExitStack() as stack:
        writer = open_writer(config, stdout)
        if writer is not None:
            await stack.enter_async_context(writer)
        backend = await stack.enter_async_context(open_backend(config))
        patience_s = config.run.give_up_after
        endpoint = await until_available(
            backend.preflight, patience_s=START_PATIENCE_S if patience_s is None else patience_s
        )
        settings = answer_settings(config, endpoint, prompt)
        digest = run_digest(settings)
        finished = await writer.begin(digest, settings) if writer is not None else _nothing_is_finished
        question = Request(
            images=(), prompt=prompt, system=config.prompt.system, generation=config.generation.generation()
        )
        job = Job(endpoint=endpoint, run=digest, question=question)
        tally = Tally()

        async def write(result: Result) -> None:
            if writer is not None:
                await writer.write(result)
            tally.add(result)
            await deliver(result)

        concurrency = config.run.concurrency or endpoint.slots or backend.concurrency
        notify(
            RunStarted(endpoint=endpoint, run=digest, concurrency=concurrency, output=config.output.output)
        )
        with _threads() as threads:
            asker = _asker(config, job, source, backend, notify, threads, concurrency, stop)
            parts = Parts(
                source=source,
                finished=finished,
                answer=asker.answer,
                write=write,
                notify=notify,
                stop=stop,
                in_flight=asker.in_flight,
            )
            pipeline = Pipeline(parts, workers=concurrency + PREPARERS, limit=config.input.limit)
            try:
                await _counted(pipeline.run(), source, notify)
            finally:
                notify(RunFinished(summary=tally.summary(pipeline, stop.is_set())))


def _asker(
    config: RunConfig,
    job: Job,
    source: Source,
    backend: Backend,
    notify: Observer,
    threads: ThreadPoolExecutor,
    concurrency: int,
    stop: asyncio.Event,
) -> Asker:
    patience_s = config.run.give_up_after

    def prepare(data: bytes, longest: int | None) -> PreparedImage:
        return imaging.prepare(data, at_most(config.image, longest))

    return Asker(
        job=job,
        source=source,
        prepare=prepare,
        backend=backend,
        slots=Limiter(concurrency),
        outages=Availability(
            backend.probe,
            patience_s=RUN_PATIENCE_S if patience_s is None else patience_s,
            notify=notify,
        ),
        retries=RetryPolicy(retries=config.run.retries),
        notify=notify,
        threads=threads,
        stop=stop,
        in_flight=set(),
    )


def open_writer(config: RunConfig, stdout: bool) -> Writer | None:
    """Where records go: the output file, standard output where that is wished, or nowhere."""
    if config.output.output != "-":
        return JsonlWriter(config.output.output, config.output)
    return StreamWriter() if stdout else None


def at_most(options: ImageOptions, longest: int | None) -> ImageOptions:
    """The options with a longest side of at most `longest` pixels; None changes nothing."""
    if longest is None:
        return options
    return replace(options, max_size=min(options.max_size or longest, longest))


def answer_settings(config: RunConfig, endpoint: Endpoint, prompt: str) -> dict[str, Any]:
    """All that changes an answer, flat, without secrets; a run is named by the digest of this."""
    return {
        "model": endpoint.model,
        "model_digest": endpoint.digest,
        "prompt": prompt,
        "system": config.prompt.system,
        "max_tokens": config.generation.max_tokens,
        "temperature": config.generation.temperature,
        "seed": config.generation.seed,
        "num_ctx": config.generation.num_ctx,
        "max_size": config.image.max_size,
        "quality": config.image.quality,
    }


def run_digest(settings: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that are the same for the same settings, here and anywhere."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


class Tally:
    """Counts results as they are written."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed = 0
        self.usage = Usage()
        self._began = time.monotonic()

    def add(self, result: Result) -> None:
        """Count one."""
        if result.completion is None:
            self.failed += 1
        else:
            self.succeeded += 1
            self.usage += result.completion.usage

    def summary(self, pipeline: Pipeline, stopped: bool) -> Summary:
        """How it stands now, with what the pipeline skipped."""
        source = pipeline.parts.source
        return Summary(
            total=self.succeeded + self.failed + pipeline.skipped + pipeline.failed_before,
            succeeded=self.succeeded,
            failed=self.failed,
            skipped=pipeline.skipped,
            failed_before=pipeline.failed_before,
            unreadable=source.unreadable,
            ignored=source.ignored,
            usage=self.usage,
            duration_s=time.monotonic() - self._began,
            stopped=stopped,
        )


def _tell_loop(loop: asyncio.AbstractEventLoop, notify: Observer, problem: SourceProblem) -> None:
    """Carry what the walking thread met to the event loop, where observers live."""
    loop.call_soon_threadsafe(notify, problem)


async def _counted(work: Awaitable[None], source: Source, notify: Observer) -> None:
    """Do the work while a thread counts how much there is."""

    async def count() -> None:
        total = await asyncio.to_thread(source.count)
        if total is not None:
            notify(TotalKnown(total=total))

    try:
        async with asyncio.TaskGroup() as group:
            counting = group.create_task(count())
            await work
            counting.cancel()
    except BaseExceptionGroup as group_error:
        raise _first(group_error) from group_error


def _first(error: BaseException) -> BaseException:
    """The one error to tell out of a group: one of ours before a bug."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_first(e) for e in error.exceptions]
    return next((e for e in leaves if isinstance(e, VlmbatchError)), leaves[0])


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that nobody waits for at the end: a decode that hangs cannot hold the exit."""
    threads = ThreadPoolExecutor(PREPARERS, "vlmbatch-prepare")
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _nothing_is_finished(_ref: object, _stamp: object) -> None:
    """A Finished for outputs that keep nothing."""
