"""What has to be found before a run can begin: prompt, images, output, cache and endpoint."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from vlmbatch.aio import threads
from vlmbatch.cache import Cache
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.discovery import EndpointUrls, plans
from vlmbatch.endpoints.preflight import Preflight, named, preflight_all
from vlmbatch.events import SourceProblem, tell
from vlmbatch.pipeline.fingerprint import accepted_now, question_of
from vlmbatch.prompts import prompt_text
from vlmbatch.prompts.schemas import schema_text
from vlmbatch.protocols import Backend, Observer, Sleep, Source, Writer
from vlmbatch.records import Endpoint, Request
from vlmbatch.sources import open_source
from vlmbatch.writers import JsonlWriter, StreamWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Who answers, what is asked, and where records go, before the output is read back.

    `endpoint` is the one whose model names the run.
    """

    met: Sequence[Preflight]
    endpoint: Endpoint
    addresses: EndpointUrls
    question: Request
    source: Source
    writer: Writer | None
    cache: Cache | None


async def find(
    config: RunConfig,
    writer: Writer | None,
    metered: Callable[[Backend], Backend],
    notify: Observer,
    sleep: Sleep,
    stack: AsyncExitStack,
) -> Found:
    """Lock the output and find the endpoints; what has to be closed goes on the stack.

    Raises:
        VlmbatchError: a run with these options, this endpoint or this output cannot start.
    """
    loop = asyncio.get_running_loop()
    with threads(1, "vlmbatch-start") as pool:  # a dead network disk must not hang the event loop
        prompt = await loop.run_in_executor(pool, prompt_text, config.prompt)
        schema = await loop.run_in_executor(pool, schema_text, config.generation.schema)
        tell_problem = partial(_tell_loop, loop, notify)
        source = await loop.run_in_executor(pool, open_source, config.paths, config.input, tell_problem)
        addresses = await loop.run_in_executor(pool, EndpointUrls, config.endpoint.base_url)
        urls = await loop.run_in_executor(pool, addresses.read)
        planned = await loop.run_in_executor(pool, plans, config, urls)
    if writer is not None:
        await stack.enter_async_context(writer)
    cache = await _open_cache(config, notify, stack)
    met = await preflight_all(config, planned, metered, cache, sleep, stack)
    if len(met) == 1 and met[0].away is not None:
        tell(notify, f"{met[0].away}; what was asked before is answered from the cache")
    return Found(
        met=met,
        endpoint=named(met),
        addresses=addresses,
        question=question_of(config, prompt, schema),
        source=source,
        writer=writer,
        cache=cache,
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


def _tell_loop(loop: asyncio.AbstractEventLoop, notify: Observer, problem: SourceProblem) -> None:
    """Carry what the walking thread met to the event loop, where observers live."""
    loop.call_soon_threadsafe(notify, problem)
