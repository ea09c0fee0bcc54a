"""What has to be found before a run can begin: prompt, images, output, cache and endpoint."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from vlmbatch.availability import RUN_PATIENCE_S, START_PATIENCE_S, until_available
from vlmbatch.backends import open_backend
from vlmbatch.cache import Cache
from vlmbatch.config import RunConfig
from vlmbatch.errors import UnreachableError
from vlmbatch.events import SourceProblem, tell
from vlmbatch.prompts import prompt_text
from vlmbatch.protocols import Backend, Observer, Sleep, Source, Writer
from vlmbatch.records import Endpoint, Request
from vlmbatch.settings import accepted_now, question_of
from vlmbatch.sources import open_source
from vlmbatch.supervision import threads
from vlmbatch.writers import JsonlWriter, StreamWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Who answers, what is asked, and where records go, before the output is read back.

    `away` is why nobody can be asked: then only what stands in the cache can be answered.
    """

    backend: Backend
    endpoint: Endpoint
    question: Request
    source: Source
    writer: Writer | None
    cache: Cache | None
    away: UnreachableError | None = None


async def find(
    config: RunConfig, writer: Writer | None, notify: Observer, sleep: Sleep, stack: AsyncExitStack
) -> Found:
    """Lock the output and find the endpoint; what has to be closed goes on the stack.

    Raises:
        VlmbatchError: a run with these options, this endpoint or this output cannot start.
    """
    loop = asyncio.get_running_loop()
    with threads(1, "vlmbatch-start") as pool:  # a dead network disk must not hang the event loop
        prompt = await loop.run_in_executor(pool, prompt_text, config.prompt)
        tell_problem = partial(_tell_loop, loop, notify)
        source = await loop.run_in_executor(pool, open_source, config.paths, config.input, tell_problem)
    if writer is not None:
        await stack.enter_async_context(writer)
    cache = await _open_cache(config, notify, stack)
    backend = await stack.enter_async_context(open_backend(config))
    endpoint, away = await _preflight(config, backend, cache, sleep)
    if away is not None:
        tell(notify, f"{away}; what was asked before is answered from the cache")
    return Found(
        backend=backend,
        endpoint=endpoint,
        question=question_of(config, prompt),
        source=source,
        writer=writer,
        cache=cache,
        away=away,
    )


def open_writer(config: RunConfig, stdout: bool) -> Writer | None:
    """Where records go: the output file, standard output where that is wished, or nowhere."""
    if config.output.output != "-":
        return JsonlWriter(config.output.output, config.output, again=accepted_now(config))
    return StreamWriter() if stdout else None


async def _open_cache(config: RunConfig, notify: Observer, stack: AsyncExitStack) -> Cache | None:
    folder = config.output.cache
    if folder is None:
        return None
    loop = asyncio.get_running_loop()

    def tell_loop(trouble: str) -> None:
        loop.call_soon_threadsafe(tell, notify, trouble)

    cache = await asyncio.to_thread(Cache, folder, tell_loop)
    stack.push_async_callback(asyncio.to_thread, cache.close)
    return cache


async def _preflight(
    config: RunConfig, backend: Backend, cache: Cache | None, sleep: Sleep
) -> tuple[Endpoint, UnreachableError | None]:
    """Who answers; where nobody is there, who did when the cache was filled, and why nobody is."""
    asked = (config.endpoint.backend, backend.place, config.endpoint.model or "")
    try:
        endpoint = await until_available(
            backend.preflight,
            patience_s=config.run.patience_s(START_PATIENCE_S),
            loading_patience_s=config.run.patience_s(RUN_PATIENCE_S),
            who=backend.place,
            sleep=sleep,
        )
    except UnreachableError as error:
        if cache is None or config.endpoint.backend == "auto":  # which may find another one each time
            raise
        known = await asyncio.to_thread(cache.endpoint, *asked)
        if known is None:
            raise
        return known, error
    if cache is not None:
        await asyncio.to_thread(cache.keep_endpoint, endpoint, *asked)
    return endpoint, None


def _tell_loop(loop: asyncio.AbstractEventLoop, notify: Observer, problem: SourceProblem) -> None:
    """Carry what the walking thread met to the event loop, where observers live."""
    loop.call_soon_threadsafe(notify, problem)
