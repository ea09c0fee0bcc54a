"""From a RunConfig to source, backend, writer and guards, and one run over them; names the concrete parts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from vlmbatch.aio import first, threads, unless
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.cost import Budget, MeteredBackend, Prices
from vlmbatch.endpoints.discovery import EndpointUrls
from vlmbatch.endpoints.pool import EndpointPool
from vlmbatch.endpoints.preflight import Preflight
from vlmbatch.endpoints.supervisor import EndpointSupervisor
from vlmbatch.errors import BackendError, blaming_the_machine
from vlmbatch.events import RunFinished, RunStarted, RunStopping, TotalKnown, tell
from vlmbatch.imaging.memory import FILES_SHARE, DecodeMemory
from vlmbatch.imaging.sizing import Sizing
from vlmbatch.machine import preparers
from vlmbatch.pipeline.dedup import Deduplicator
from vlmbatch.pipeline.fingerprint import answer_settings, run_digest, with_known_digest
from vlmbatch.pipeline.preparer import Preparer, preparer_of, sizing_for
from vlmbatch.pipeline.processor import ImageProcessor
from vlmbatch.pipeline.retry import RetryPolicy
from vlmbatch.pipeline.session import Found, find, open_writer
from vlmbatch.pipeline.sink import ResultSink
from vlmbatch.pipeline.task import Job
from vlmbatch.pipeline.time_limit import TimeLimit
from vlmbatch.pipeline.workers import Parts, WorkerPool
from vlmbatch.prompts.schemas import reader_of
from vlmbatch.protocols import Backend, Finished, Observer, Sleep, Source
from vlmbatch.records import Result, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a run is given by whoever starts it.

    `deliver` gets each result once it is written; setting `stop` ends the run early; `stdout` writes
    records to standard output where no file is named; `sleep` is how to wait between attempts.
    """

    deliver: Callable[[Result], Awaitable[None]]
    notify: Observer
    stop: asyncio.Event
    stdout: bool = False
    sleep: Sleep = asyncio.sleep


async def run(config: RunConfig, outside: RunContext) -> None:
    """One run, from its options to its summary; ends early once `outside.stop` is set.

    Raises:
        VlmbatchError: what ends a whole run; its class tells the exit code.
    """
    stopping = RunStopping(drain_s=config.run.drain)
    with blaming_the_machine():
        async with AsyncExitStack() as stack:
            with TimeLimit(config.run, outside.stop, partial(tell, outside.notify)):
                making = _make(config, outside, stack)
                made = await unless(outside.stop, making, lambda: outside.notify(stopping))
                if made is not None:
                    await _work(config, outside, made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The parts of a run whose endpoints have been found and whose output is open."""

    asker: ImageProcessor
    source: Source
    delivery: ResultSink
    crew: EndpointSupervisor
    addresses: EndpointUrls
    budget: Budget


async def _make(config: RunConfig, outside: RunContext, stack: AsyncExitStack) -> Made:
    """Open all that a run needs, and say that it has started.

    Raises:
        VlmbatchError: a run with these options, these endpoints or this output cannot start.
    """
    writer = open_writer(config, outside.stdout)
    budget = Budget(config.run.max_cost, outside.stop, partial(tell, outside.notify))
    price = await asyncio.to_thread(_price, config)

    def metered(backend: Backend) -> Backend:
        return MeteredBackend(backend, budget.spend, price)

    found = await find(config, writer, metered, outside.notify, outside.sleep, stack)
    question = found.question
    settings = answer_settings(config, found.endpoint, question.prompt, question.generation.schema)
    if writer is not None:
        settings = with_known_digest(settings, writer.earlier)
    job = Job(endpoint=found.endpoint, run=run_digest(settings), question=found.question)
    sizing = sizing_for(config, found.endpoint, outside.notify)
    crew = EndpointSupervisor(config, job.question, metered, outside.notify, outside.sleep, stack)
    for met in found.met:
        crew.take(met)
    finished: Finished = _nothing_is_finished
    if writer is not None:
        finished = await writer.begin(job.run, settings)
        for notice in writer.notices:
            tell(outside.notify, notice)
    outside.notify(_started(config, found, job, crew.lanes))
    pool = stack.enter_context(threads(preparers(), "vlmbatch-prepare"))
    keep = _keep_nothing if found.cache is None else found.cache.keep
    return Made(
        asker=_asker(config, outside, found, job, crew.lanes, sizing, pool),
        source=found.source,
        delivery=ResultSink(finished, writer, outside.deliver, outside.notify, keep),
        crew=crew,
        addresses=found.addresses,
        budget=budget,
    )


def _price(config: RunConfig) -> Callable[[str, Usage], float] | None:
    """What so many tokens cost of a model, by --prices; blocks, and raises ConfigError for a bad file."""
    if config.display.prices is None:
        return None
    prices = Prices(config.display.prices)
    return lambda model, usage: prices.of(model).of(usage)


def _started(config: RunConfig, found: Found, job: Job, lanes: EndpointPool) -> RunStarted:
    _, *others = [met for met in found.met if met.plan.rank == 0]
    return RunStarted(
        endpoint=found.endpoint,
        run=job.run,
        concurrency=lanes.limit,
        output=config.output.output,
        adapts=config.run.concurrency is None,
        others=tuple(met.place for met in others),
        fallbacks=tuple(_shown(met) for met in found.met if met.plan.rank > 0),
        notes=tuple(_notes(found)),
    )


def _notes(found: Found) -> Iterator[str]:
    """What a person should know of the other endpoints, each thing once."""
    others = [met.endpoint for met in found.met if met.endpoint not in (None, found.endpoint)]
    told = dict.fromkeys(note for endpoint in others if endpoint for note in endpoint.notes)
    yield from (note for note in told if note not in found.endpoint.notes)
    yield from (f"{met.place} is not there yet: {met.away}" for met in found.met if met.away is not None)
    same = [e for e in others if e and e.model == found.endpoint.model and e.digest and found.endpoint.digest]
    if any(endpoint.digest != found.endpoint.digest for endpoint in same):
        yield f"the weights of {found.endpoint.model} are not the same at all endpoints"


def _shown(met: Preflight) -> str:
    model = met.endpoint.model if met.endpoint else met.plan.config.endpoint.model
    return f"{model or 'its model'} ({met.backend.name}, {met.place})"


def _asker(
    config: RunConfig,
    outside: RunContext,
    found: Found,
    job: Job,
    lanes: EndpointPool,
    sizing: Sizing,
    pool: ThreadPoolExecutor,
) -> ImageProcessor:
    memory = DecodeMemory.of(config.run.decode_memory)
    files = memory.part(FILES_SHARE)
    answers = _answers(config, found, job.run)
    preparer = Preparer(
        source=found.source,
        # what is larger than --max-bytes is refused when it is read, and not for the room it would take
        room_to_read=lambda size: files.room(min(size or 0, config.input.max_bytes)),
        prepare=preparer_of(config, sizing, memory),
        answers=answers,
        threads=pool,
        notify=outside.notify,
    )
    return ImageProcessor(
        job=job,
        look=preparer.look,
        shrink=preparer.shrink,
        answers=answers,
        lanes=lanes,
        read=reader_of(job.question.generation.schema),
        retries=RetryPolicy(retries=config.run.retries, sleep=outside.sleep),
        notify=outside.notify,
        stop=outside.stop,
        in_flight=set(),
        fallback_on=config.endpoint.reasons,
    )


def _answers(config: RunConfig, found: Found, run: str) -> Deduplicator:
    written = _nothing_is_known if found.writer is None else found.writer.find
    return Deduplicator(
        output=written if config.output.dedupe else None,
        cache=None if found.cache is None else partial(found.cache.find, run),
    )


async def _work(config: RunConfig, outside: RunContext, made: Made) -> None:
    """Bring every image to its record, and tell how it went even where the run ends with an error."""
    source, delivery, lanes = made.source, made.delivery, made.crew.lanes
    parts = Parts(
        source=source,
        finished=delivery.finished,
        room=lanes.room,
        answer=made.asker.answer,
        write=delivery.take,
        notify=outside.notify,
        stop=outside.stop,
        drain_s=config.run.drain,
        in_flight=made.asker.in_flight,
    )
    workers = made.crew.most_rooms(may_grow=made.addresses.may_change)
    pipeline = WorkerPool(parts, workers=workers, limit=config.input.limit)
    whole = False
    try:
        # with a limit, how many images there are says nothing about how many will be asked about
        count = source.count if config.input.limit is None else _unknown
        try:
            async with made.crew.at_work(made.addresses):
                await counted(pipeline.run(), count, outside.notify)
            if config.endpoint.unload:
                await made.crew.unload()
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
            endpoints=made.crew.endpoints,
            cost=made.budget.spent,
        )
        outside.notify(RunFinished(summary=summary))


def _unknown() -> None:
    """How many images there are, where that is of no use."""


def _nothing_is_finished(_ref: object, _stamp: object) -> None:
    """A Finished for outputs that keep nothing."""


def _nothing_is_known(_sha256: str, _prompt: str) -> None:
    """What a run without an output finds in it."""


def _keep_nothing(_result: Result) -> None:
    """What a run without a cache keeps for others."""


async def counted(work: Awaitable[None], count: Callable[[], int | None], notify: Observer) -> None:
    """Do the work while a thread counts how much there is."""

    async def tell_total(thread: ThreadPoolExecutor) -> None:
        total = await asyncio.get_running_loop().run_in_executor(thread, count)
        if total is not None:
            notify(TotalKnown(total=total))

    try:
        with threads(1, "vlmbatch-count") as thread:
            async with asyncio.TaskGroup() as group:
                counting = group.create_task(tell_total(thread))
                await work
                counting.cancel()
    except BaseExceptionGroup as group_error:
        raise first(group_error) from group_error
