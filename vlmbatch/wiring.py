"""From a RunConfig to source, backend, writer and guards, and one run over them; names the concrete parts."""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vlmbatch import imaging
from vlmbatch.asking import Asker
from vlmbatch.availability import RUN_PATIENCE_S, START_PATIENCE_S, until_available
from vlmbatch.backends import open_backend
from vlmbatch.config import RunConfig
from vlmbatch.draft import Job
from vlmbatch.errors import BackendError, VlmbatchError
from vlmbatch.events import ImageFinished, Notice, RunFinished, RunStarted, SourceProblem, TotalKnown
from vlmbatch.guards import PREPARERS, availability_of, limiter_of, or_default, tell
from vlmbatch.limiter import Limiter
from vlmbatch.option_groups import ImageOptions
from vlmbatch.pipeline import Parts, Pipeline
from vlmbatch.prompts import prompt_text
from vlmbatch.protocols import Finished, Observer, Sleep, Writer
from vlmbatch.records import Endpoint, Generation, PreparedImage, Request, Result, Summary, Usage
from vlmbatch.retry import RetryPolicy
from vlmbatch.sources import open_source
from vlmbatch.verdicts import Verdicts
from vlmbatch.writers import JsonlWriter, StreamWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a run is given by whoever starts it.

    `deliver` gets each result once it is written; setting `stop` ends the run early; `stdout` writes
    records to standard output where no file is named; `sleep` is how to wait between attempts.
    """

    deliver: Callable[[Result], Awaitable[None]]
    notify: Observer
    stop: asyncio.Event
    stdout: bool = False
    sleep: Sleep = asyncio.sleep


async def run(config: RunConfig, outside: Outside) -> None:
    """One run, from its options to its summary.

    Raises:
        VlmbatchError: what ends a whole run; its class tells the exit code.
    """
    prompt = prompt_text(config.prompt)
    tell_problem = partial(_tell_loop, asyncio.get_running_loop(), outside.notify)
    source = open_source(config.paths, config.input, tell_problem)
    async with AsyncExitStack() as stack:
        writer = open_writer(config, outside.stdout)
        if writer is not None:
            await stack.enter_async_context(writer)
        backend = await stack.enter_async_context(open_backend(config))
        endpoint = await until_available(
            backend.preflight,
            patience_s=or_default(config.run.give_up_after, START_PATIENCE_S),
            loading_patience_s=or_default(config.run.give_up_after, RUN_PATIENCE_S),
            sleep=outside.sleep,
        )
        settings = answer_settings(config, endpoint, prompt)
        job = Job(endpoint=endpoint, run=run_digest(settings), question=question_of(config, prompt))
        limiter = limiter_of(config, endpoint, backend, outside.notify, outside.sleep)
        finished: Finished = _nothing_is_finished
        if writer is not None:
            finished = await writer.begin(job.run, settings)
            for notice in writer.notices:
                outside.notify(Notice(message=notice))
        outside.notify(
            RunStarted(
                endpoint=endpoint,
                run=job.run,
                concurrency=limiter.limit,
                output=config.output.output,
                adapts=config.run.concurrency is None,
            )
        )
        threads = stack.enter_context(_threads(PREPARERS, "vlmbatch-prepare"))
        asker = Asker(
            job=job,
            source=source,
            prepare=partial(_prepare, config.image),
            backend=backend,
            slots=limiter,
            outages=availability_of(config, backend, job.question, outside.notify, outside.sleep),
            retries=RetryPolicy(retries=config.run.retries, sleep=outside.sleep),
            notify=outside.notify,
            threads=threads,
            stop=outside.stop,
            in_flight=set(),
        )
        await _work(config, outside, asker, finished, writer, limiter)


async def _work(
    config: RunConfig,
    outside: Outside,
    asker: Asker,
    finished: Finished,
    writer: Writer | None,
    limiter: Limiter,
) -> None:
    """Bring every image to its record, and tell how it went even where the run ends with an error."""
    tally = Tally()
    verdicts = Verdicts(partial(tell, outside.notify), lambda: pipeline.skipped > 0)

    async def put_away(results: list[Result]) -> None:
        for result in results:
            if writer is not None:
                await writer.write(result)
            tally.add(result)
            await outside.deliver(result)
            outside.notify(ImageFinished(result=result))

    async def write(result: Result) -> None:
        await put_away(verdicts.look_at(result))

    parts = Parts(
        source=asker.source,
        finished=finished,
        room=limiter.room,
        answer=asker.answer,
        write=write,
        notify=outside.notify,
        stop=outside.stop,
        in_flight=asker.in_flight,
    )
    pipeline = Pipeline(parts, workers=limiter.most_rooms, limit=config.input.limit)
    whole = False
    try:
        # with a limit, how many images there are says nothing about how many will be asked about
        count = asker.source.count if config.input.limit is None else _unknown
        try:
            await _counted(pipeline.run(), count, outside.notify)
        except BackendError:
            await put_away(verdicts.rest())
            raise
        await put_away(verdicts.rest())
        whole = not outside.stop.is_set()
    finally:
        outside.notify(RunFinished(summary=tally.summary(pipeline, stopped=not whole)))


def _prepare(options: ImageOptions, data: bytes, longest: int | None) -> PreparedImage:
    return imaging.prepare(data, at_most(options, longest))


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


def question_of(config: RunConfig, prompt: str) -> Request:
    """What is asked about every image, still without one."""
    options = config.generation
    generation = Generation(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
        num_ctx=options.num_ctx,
    )
    return Request(
        images=(),
        prompt=prompt,
        system=config.prompt.system,
        generation=generation,
        accept=frozenset(options.accept.split(",")) - {""},
    )


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


async def _counted(work: Awaitable[None], count: Callable[[], int | None], notify: Observer) -> None:
    """Do the work while a thread counts how much there is."""

    async def tell_total(thread: ThreadPoolExecutor) -> None:
        total = await asyncio.get_running_loop().run_in_executor(thread, count)
        if total is not None:
            notify(TotalKnown(total=total))

    try:
        with _threads(1, "vlmbatch-count") as thread:
            async with asyncio.TaskGroup() as group:
                counting = group.create_task(tell_total(thread))
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
def _threads(number: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that nobody waits for at the end: a decode or a walk that hangs cannot hold the exit."""
    threads = ThreadPoolExecutor(number, name)
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _unknown() -> None:
    """How many images there are, where that is of no use."""


def _nothing_is_finished(_ref: object, _stamp: object) -> None:
    """A Finished for outputs that keep nothing."""
