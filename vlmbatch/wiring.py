"""From a RunConfig to source, backend, writer and guards, and one run over them; names the concrete parts."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from vlmbatch.asking import Asker
from vlmbatch.availability import RUN_PATIENCE_S, START_PATIENCE_S, until_available
from vlmbatch.backends import open_backend
from vlmbatch.closing import Closing
from vlmbatch.config import RunConfig
from vlmbatch.delivery import Delivery
from vlmbatch.draft import Job
from vlmbatch.errors import BackendError, blaming_the_machine
from vlmbatch.events import RunFinished, RunStarted, RunStopping, SourceProblem, tell
from vlmbatch.guards import availability_of, limiter_of, preparer_of, preparers
from vlmbatch.limiter import Limiter
from vlmbatch.memory import FILES_SHARE, Memory
from vlmbatch.pipeline import Parts, Pipeline
from vlmbatch.prompts import prompt_text
from vlmbatch.protocols import Backend, Finished, Observer, Sleep, Source, Writer
from vlmbatch.records import Endpoint, Request, Result
from vlmbatch.retry import RetryPolicy
from vlmbatch.settings import accepted_now, answer_settings, question_of, run_digest
from vlmbatch.sources import open_source
from vlmbatch.supervision import counted, threads, unless
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
    """One run, from its options to its summary; ends early once `outside.stop` is set.

    Raises:
        VlmbatchError: what ends a whole run; its class tells the exit code.
    """
    stopping = RunStopping(drain_s=config.run.drain)
    with blaming_the_machine():
        async with AsyncExitStack() as stack:
            with Closing(config.run, outside.stop, partial(tell, outside.notify)):
                making = _make(config, outside, stack)
                made = await unless(outside.stop, making, lambda: outside.notify(stopping))
                if made is not None:
                    await _work(config, outside, made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The parts of a run whose endpoint has been found and whose output is open."""

    asker: Asker
    finished: Finished
    writer: Writer | None
    limiter: Limiter


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Who answers, what is asked, and where records go, before the output is read back."""

    backend: Backend
    endpoint: Endpoint
    question: Request
    source: Source
    writer: Writer | None


async def _find(config: RunConfig, outside: Outside, stack: AsyncExitStack) -> Found:
    """Lock the output and find the endpoint; what has to be closed goes on the stack.

    Raises:
        VlmbatchError: a run with these options, this endpoint or this output cannot start.
    """
    loop = asyncio.get_running_loop()
    tell_problem = partial(_tell_loop, loop, outside.notify)
    with threads(1, "vlmbatch-start") as pool:  # a dead network disk must not hang the event loop
        prompt = await loop.run_in_executor(pool, prompt_text, config.prompt)
        source = await loop.run_in_executor(pool, open_source, config.paths, config.input, tell_problem)
    writer = open_writer(config, outside.stdout)
    if writer is not None:
        await stack.enter_async_context(writer)
    backend = await stack.enter_async_context(open_backend(config))
    endpoint = await until_available(
        backend.preflight,
        patience_s=config.run.patience_s(START_PATIENCE_S),
        loading_patience_s=config.run.patience_s(RUN_PATIENCE_S),
        who=backend.place,
        sleep=outside.sleep,
    )
    question = question_of(config, prompt)
    return Found(backend=backend, endpoint=endpoint, question=question, source=source, writer=writer)


async def _make(config: RunConfig, outside: Outside, stack: AsyncExitStack) -> Made:
    """Open all that a run needs, and say that it has started.

    Raises:
        VlmbatchError: a run with these options, this endpoint or this output cannot start.
    """
    found = await _find(config, outside, stack)
    settings = answer_settings(config, found.endpoint, found.question.prompt)
    job = Job(endpoint=found.endpoint, run=run_digest(settings), question=found.question)
    limiter = limiter_of(config, found.endpoint, found.backend, outside.notify, outside.sleep)
    finished: Finished = _nothing_is_finished
    if found.writer is not None:
        finished = await found.writer.begin(job.run, settings)
        for notice in found.writer.notices:
            tell(outside.notify, notice)
    outside.notify(
        RunStarted(
            endpoint=found.endpoint,
            run=job.run,
            concurrency=limiter.limit,
            output=config.output.output,
            adapts=config.run.concurrency is None,
        )
    )
    pool = stack.enter_context(threads(preparers(), "vlmbatch-prepare"))
    asker = _asker(config, outside, found, job, limiter, pool)
    return Made(asker=asker, finished=finished, writer=found.writer, limiter=limiter)


def _asker(
    config: RunConfig,
    outside: Outside,
    found: Found,
    job: Job,
    limiter: Limiter,
    pool: ThreadPoolExecutor,
) -> Asker:
    memory = Memory.of(config.run.decode_memory)
    files = memory.part(FILES_SHARE)
    return Asker(
        job=job,
        source=found.source,
        # what is larger than --max-bytes is refused when it is read, and not for the room it would take
        room_to_read=lambda size: files.room(min(size or 0, config.input.max_bytes)),
        prepare=preparer_of(config, memory),
        backend=found.backend,
        slots=limiter,
        outages=availability_of(config, found.backend, job.question, outside.notify, outside.sleep),
        retries=RetryPolicy(retries=config.run.retries, sleep=outside.sleep),
        notify=outside.notify,
        threads=pool,
        stop=outside.stop,
        in_flight=set(),
    )


async def _work(config: RunConfig, outside: Outside, made: Made) -> None:
    """Bring every image to its record, and tell how it went even where the run ends with an error."""
    source = made.asker.source
    delivery = Delivery(made.finished, made.writer, outside.deliver, outside.notify)
    parts = Parts(
        source=source,
        finished=delivery.finished,
        room=made.limiter.room,
        answer=made.asker.answer,
        write=delivery.take,
        notify=outside.notify,
        stop=outside.stop,
        drain_s=config.run.drain,
        in_flight=made.asker.in_flight,
    )
    pipeline = Pipeline(parts, workers=made.limiter.most_rooms, limit=config.input.limit)
    whole = False
    try:
        # with a limit, how many images there are says nothing about how many will be asked about
        count = source.count if config.input.limit is None else _unknown
        try:
            await counted(pipeline.run(), count, outside.notify)
        except BackendError:
            await delivery.rest()
            raise
        await delivery.rest()
        whole = pipeline.complete
    finally:
        summary = delivery.tally.summary(
            skipped=pipeline.skipped,
            failed_before=pipeline.failed_before,
            unreadable=source.unreadable,
            ignored=source.ignored,
            stopped=not whole,
        )
        outside.notify(RunFinished(summary=summary))


def open_writer(config: RunConfig, stdout: bool) -> Writer | None:
    """Where records go: the output file, standard output where that is wished, or nowhere."""
    if config.output.output != "-":
        return JsonlWriter(config.output.output, config.output, again=accepted_now(config))
    return StreamWriter() if stdout else None


def _tell_loop(loop: asyncio.AbstractEventLoop, notify: Observer, problem: SourceProblem) -> None:
    """Carry what the walking thread met to the event loop, where observers live."""
    loop.call_soon_threadsafe(notify, problem)


def _unknown() -> None:
    """How many images there are, where that is of no use."""


def _nothing_is_finished(_ref: object, _stamp: object) -> None:
    """A Finished for outputs that keep nothing."""
