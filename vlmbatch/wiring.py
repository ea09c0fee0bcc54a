"""From a RunConfig to source, backend, writer and guards, and one run over them; names the concrete parts."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from vlmbatch.asking import Asker
from vlmbatch.availability import RUN_PATIENCE_S, START_PATIENCE_S, until_available
from vlmbatch.backends import open_backend
from vlmbatch.closing import Closing
from vlmbatch.config import RunConfig
from vlmbatch.draft import Job
from vlmbatch.errors import BackendError, VlmbatchError, blaming_the_machine
from vlmbatch.events import ImageFinished, Notice, RunFinished, RunStarted, SourceProblem, TotalKnown
from vlmbatch.guards import PREPARERS, availability_of, limiter_of, or_default, preparer_of, tell
from vlmbatch.limiter import Limiter
from vlmbatch.memory import FILES_SHARE, Memory
from vlmbatch.pipeline import Parts, Pipeline
from vlmbatch.prompts import prompt_text
from vlmbatch.protocols import Finished, Observer, Sleep, Writer
from vlmbatch.records import Result
from vlmbatch.retry import RetryPolicy
from vlmbatch.settings import answer_settings, question_of, run_digest
from vlmbatch.sources import open_source
from vlmbatch.tally import Tally
from vlmbatch.verdicts import Verdicts
from vlmbatch.writers import JsonlWriter, StreamWriter

T = TypeVar("T")


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
    with blaming_the_machine(), Closing(config.run, outside.stop, partial(tell, outside.notify)):
        async with AsyncExitStack() as stack:
            made = await _unless(outside.stop, _make(config, outside, stack))
            if made is not None:
                await _work(config, outside, made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The parts of a run whose endpoint has been found and whose output is open."""

    asker: Asker
    finished: Finished
    writer: Writer | None
    limiter: Limiter


async def _make(config: RunConfig, outside: Outside, stack: AsyncExitStack) -> Made:
    """Open all that a run needs; what has to be closed goes on the stack.

    Raises:
        VlmbatchError: a run with these options, this endpoint or this output cannot start.
    """
    prompt = prompt_text(config.prompt)
    tell_problem = partial(_tell_loop, asyncio.get_running_loop(), outside.notify)
    source = open_source(config.paths, config.input, tell_problem)
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
    memory = Memory.of(config.run.decode_memory)
    asker = Asker(
        job=job,
        source=source,
        room_to_read=memory.part(FILES_SHARE).room,
        prepare=preparer_of(config, memory),
        backend=backend,
        slots=limiter,
        outages=availability_of(config, backend, job.question, outside.notify, outside.sleep),
        retries=RetryPolicy(retries=config.run.retries, sleep=outside.sleep),
        notify=outside.notify,
        threads=stack.enter_context(_threads(PREPARERS, "vlmbatch-prepare")),
        stop=outside.stop,
        in_flight=set(),
    )
    return Made(asker=asker, finished=finished, writer=writer, limiter=limiter)


async def _work(config: RunConfig, outside: Outside, made: Made) -> None:
    """Bring every image to its record, and tell how it went even where the run ends with an error."""
    tally = Tally()
    verdicts = Verdicts(partial(tell, outside.notify), lambda: pipeline.skipped > 0)
    source = made.asker.source

    async def put_away(results: list[Result]) -> None:
        for result in results:
            if made.writer is not None:
                await made.writer.write(result)
            tally.add(result)
            await outside.deliver(result)
            outside.notify(ImageFinished(result=result))

    async def write(result: Result) -> None:
        await put_away(verdicts.look_at(result))

    parts = Parts(
        source=source,
        finished=made.finished,
        room=made.limiter.room,
        answer=made.asker.answer,
        write=write,
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
            await _counted(pipeline.run(), count, outside.notify)
        except BackendError:
            await put_away(verdicts.rest())
            raise
        await put_away(verdicts.rest())
        whole = pipeline.complete
    finally:
        summary = tally.summary(
            skipped=pipeline.skipped,
            failed_before=pipeline.failed_before,
            unreadable=source.unreadable,
            ignored=source.ignored,
            stopped=not whole,
        )
        outside.notify(RunFinished(summary=summary))


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns, or None where `stop` is set first; then `work` is cancelled."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
    return None if working.cancelled() else working.result()


def open_writer(config: RunConfig, stdout: bool) -> Writer | None:
    """Where records go: the output file, standard output where that is wished, or nowhere."""
    if config.output.output != "-":
        return JsonlWriter(config.output.output, config.output)
    return StreamWriter() if stdout else None


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
