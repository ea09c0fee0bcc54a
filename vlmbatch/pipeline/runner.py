"""A run: a session, and the parts around it that walk the source, resume, write, stop and sum up."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from vlmbatch.aio import ReadAhead, first, threads, unless
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.preflight import Preflight
from vlmbatch.errors import BackendError, ConfigError, resource_errors
from vlmbatch.events import RunFinished, RunStarted, RunStopping, SourceProblem, TotalKnown, tell
from vlmbatch.pipeline.empty_paths import empty_notice, why_refused
from vlmbatch.pipeline.fingerprint import accepted_now
from vlmbatch.pipeline.question import Question, report_sizing
from vlmbatch.pipeline.session import Session
from vlmbatch.pipeline.sink import ResultSink
from vlmbatch.pipeline.time_limit import TimeLimit
from vlmbatch.pipeline.workers import WorkerPool
from vlmbatch.prompts import prompt_text
from vlmbatch.prompts.schemas import schema_text
from vlmbatch.protocols import Finished, Observer, Sleep, Source, Writer
from vlmbatch.records import Endpoint, Result
from vlmbatch.sources import OwnFiles, open_source
from vlmbatch.sources.in_memory import InMemoryImage
from vlmbatch.writers import JsonlWriter, StreamWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The surroundings of a run.

    `deliver` gets each result once it is written. Setting `stop` ends the run early. With `stdout`, records
    go to standard output if no file is named. With `require_images`, folders without any image are an error,
    else a notice. `sleep` waits between attempts. The images `in_memory` come before those of the PATHs.
    """

    deliver: Callable[[Result], Awaitable[None]]
    notify: Observer
    stop: asyncio.Event
    stdout: bool = False
    require_images: bool = False
    sleep: Sleep = asyncio.sleep
    in_memory: Sequence[InMemoryImage] = ()


async def run(config: RunConfig, context: RunContext) -> None:
    """One run, from its options to its summary; ends early once `context.stop` is set.

    Raises:
        VlmbatchError: the error that ends the run; its class has the exit code.
    """
    stopping = RunStopping(drain_s=config.run.drain)
    with resource_errors():
        async with AsyncExitStack() as stack:
            with TimeLimit(config.run, context.stop, partial(tell, context.notify)):
                starting = _start(config, context, stack)
                started = await unless(context.stop, starting, lambda: context.notify(stopping))
                if started is not None:
                    await _work(config, context, started)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The parts of a run after its RunStarted event."""

    session: Session
    question: Question
    source: Source
    sink: ResultSink


async def _start(config: RunConfig, context: RunContext, stack: AsyncExitStack) -> Started:
    """Read the inputs, lock the output, open the session, read back the output.

    Raises:
        VlmbatchError: a run with these options, these endpoints or this output cannot start.
    """
    notify = context.notify
    writer = _writer(config, context.stdout)
    loop = asyncio.get_running_loop()
    with threads(1, "vlmbatch-start") as thread:  # a dead network disk must not hang the event loop
        prompt = await loop.run_in_executor(thread, prompt_text, config.prompt)
        schema = await loop.run_in_executor(thread, schema_text, config.generation.schema)
        report = partial(_report_problem, loop, notify)
        own = await loop.run_in_executor(thread, OwnFiles.of, config)
        source = await loop.run_in_executor(
            thread, open_source, config.paths, config.input, report, own, context.in_memory
        )
    refused = await _refusal(config, source) if context.require_images else None
    if writer is not None:
        await stack.enter_async_context(writer)
    session = await Session.open(
        config,
        notify=notify,
        stop=context.stop,
        stack=stack,
        sleep=context.sleep,
        output=writer,
        wait=refused is None,
    )
    if refused is not None:  # after a mistake in the options, which would remain
        raise ConfigError(refused)
    question = Question.of(config, session.endpoint, prompt, schema)
    report_sizing(question, notify)
    finished: Finished | None = None
    if writer is not None:
        question = question.continuing(writer.earlier)
        finished = await writer.begin(question.run, question.settings)
        for notice in writer.notices:
            tell(notify, notice)
    output = None if writer is None else config.output.output
    notify(_run_started(config, session, question, output))
    return Started(
        session=session,
        question=question,
        source=source,
        sink=ResultSink(
            finished=finished,
            writer=writer,
            cache=session.cache,
            deliver=context.deliver,
            bugs=session.processor.bugs,
            notify=notify,
        ),
    )


async def _refusal(config: RunConfig, source: Source) -> str | None:
    """See `why_refused`. The walk to the first image may be long, and its thread must not delay the exit."""
    answer = (why_refused(config, source) for _ in range(1))
    return await ReadAhead(answer, ahead=1, name="vlmbatch-first").take()


async def _work(config: RunConfig, context: RunContext, started: Started) -> None:
    """Bring every image to its record, and sum up even if the run ends with an error."""
    session, source, sink = started.session, started.source, started.sink
    workers = WorkerPool(
        source=source,
        question=started.question,
        processor=session.processor,
        sink=sink,
        notify=context.notify,
        stop=context.stop,
        drain_s=config.run.drain,
        workers=session.most_at_once,
        limit=config.input.limit,
    )
    whole = False
    try:
        try:
            async with session.supervisor.at_work(session.urls):
                # with a limit, the number of images is not the number that the run will process
                if config.input.limit is None:
                    await _counted(workers, source, context.notify)
                else:
                    await workers.run()
            if config.endpoint.unload:
                await session.supervisor.unload()
        except BackendError:
            await sink.flush()
            raise
        await sink.flush()
        whole = workers.complete
        if whole and (notice := empty_notice(config, source.empty_paths)) is not None:
            tell(context.notify, notice)
    finally:
        summary = sink.statistics.summary(
            skipped=workers.skipped,
            failed_before=workers.failed_before,
            unreadable=source.unreadable,
            ignored=source.ignored,
            ignored_kinds=source.ignored_kinds,
            skipped_entries=source.skipped_entries,
            empty_paths=source.empty_paths,
            stopped=not whole,
            endpoints=session.supervisor.endpoints,
            cost=session.budget.spent,
        )
        context.notify(RunFinished(summary=summary))


def _writer(config: RunConfig, stdout: bool) -> Writer | None:
    """The writer of the records: to the output file, to standard output, or none."""
    if config.output.output != "-":
        return JsonlWriter(config.output.output, config.output, again=accepted_now(config))
    return StreamWriter() if stdout else None


async def _counted(workers: WorkerPool, source: Source, notify: Observer) -> None:
    """Do the work while a thread counts the images.

    It begins when the walk waits for the workers, or has found all: two walks at once slow each other.
    """

    async def report_total(thread: ThreadPoolExecutor) -> None:
        await workers.walk_rested.wait()
        total = await asyncio.get_running_loop().run_in_executor(thread, source.count)
        if total is not None:
            notify(TotalKnown(total=total))

    try:
        with threads(1, "vlmbatch-count") as thread:
            async with asyncio.TaskGroup() as group:
                counting = group.create_task(report_total(thread))
                await workers.run()
                counting.cancel()
    except BaseExceptionGroup as group_error:
        raise first(group_error) from group_error


def _report_problem(loop: asyncio.AbstractEventLoop, notify: Observer, problem: SourceProblem) -> None:
    """Carry a problem from the walking thread to the event loop, where observers live."""
    loop.call_soon_threadsafe(notify, problem)


def _run_started(config: RunConfig, session: Session, question: Question, output: str | None) -> RunStarted:
    found = session.found
    _, *others = [each for each in found if each.spec.rank == 0]
    return RunStarted(
        endpoint=question.endpoint,
        run=question.run,
        concurrency=session.supervisor.pool.limit,
        output=output,
        adapts=config.run.concurrency is None,
        others=tuple(each.place for each in others),
        fallbacks=tuple(_fallback_name(each) for each in found if each.spec.rank > 0),
        notes=tuple(_notes(found, question.endpoint)),
        away={each.place: str(each.away) for each in found if each.away is not None},
    )


def _notes(found: Sequence[Preflight], named: Endpoint) -> Iterator[str]:
    """The notes about the other endpoints, each once."""
    others = [each.endpoint for each in found if each.endpoint not in (None, named)]
    notes = dict.fromkeys(note for endpoint in others if endpoint for note in endpoint.notes)
    yield from (note for note in notes if note not in named.notes)
    others_up = "; the other endpoints go on" if len(found) > 1 else ""
    for each in found:
        if each.away is not None:
            yield f"{each.place} is down at the start: {each.away}{others_up}"
    same = [each for each in others if each and each.model == named.model and each.digest and named.digest]
    if any(endpoint.digest != named.digest for endpoint in same):
        yield f"the weights of {named.model} are not the same at all endpoints"


def _fallback_name(each: Preflight) -> str:
    model = each.endpoint.model if each.endpoint else each.spec.config.endpoint.model
    return f"{model or 'its model'} ({each.backend.name}, {each.place})"
