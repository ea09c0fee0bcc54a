"""Lists the models of an Ollama server with their facts, which it reports on three routes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from vlmbatch.backends.http.wire import count, mapping, mappings, string
from vlmbatch.backends.ollama.replies import capabilities_of, context_of, remote_host_of
from vlmbatch.errors import BackendError, FatalBackendError
from vlmbatch.records import ModelFacts

AT_ONCE = 8
"""Simultaneous requests about single models; for each of them Ollama reads a file."""

Query = Callable[[str], Awaitable[Mapping[str, Any]]]


async def facts_of(
    listed: Mapping[str, Mapping[str, Any]], place: str, show: Query, ps: Query
) -> list[ModelFacts]:
    """The facts of the listed models, sorted by name.

    `show` requests the facts of one model, `ps` the loaded models at a path. If `show` fails, the model has
    only the facts of the list.
    """
    try:
        loaded = {string(m.get("name")): m for m in mappings((await ps("/api/ps")).get("models"))}
    except FatalBackendError:  # versions before 0.1.33 do not have this route
        loaded = None
    turns = asyncio.Semaphore(AT_ONCE)

    async def facts(name: str) -> ModelFacts:
        entry = listed[name]
        if capabilities_of(entry) is None or not _context(entry, {}):  # newer versions list both
            async with turns:
                shown = await _shown(name, show)
        else:
            shown = {}
        return _facts(name, place, entry, shown, loaded)

    return list(await asyncio.gather(*(facts(name) for name in sorted(listed))))


async def _shown(name: str, show: Query) -> Mapping[str, Any]:
    try:
        return await show(name)
    except BackendError:  # deleted meanwhile, or a broken file: the facts of the list are still right
        return {}


def _facts(
    name: str,
    place: str,
    entry: Mapping[str, Any],
    shown: Mapping[str, Any],
    loaded: Mapping[str, Mapping[str, Any]] | None,
) -> ModelFacts:
    details = {**mapping(shown.get("details")), **mapping(entry.get("details"))}
    capabilities = capabilities_of(entry) or capabilities_of(shown)
    running = None if loaded is None else loaded.get(name)
    elsewhere = remote_host_of(name, entry, shown) or None
    return ModelFacts(
        name=name,
        backend="ollama",
        endpoint=place,
        bytes=count(entry.get("size")) or None,
        parameters=string(details.get("parameter_size")) or None,
        quantization=string(details.get("quantization_level")) or None,
        context=_context(entry, shown),
        sees=None if capabilities is None else "vision" in capabilities,
        loaded=None if loaded is None or elsewhere else running is not None,
        on_gpu=None if running is None else _on_gpu(running),
        loaded_context=None if running is None else count(running.get("context_length")) or None,
        elsewhere=elsewhere,
    )


def _context(entry: Mapping[str, Any], shown: Mapping[str, Any]) -> int | None:
    return context_of(shown) or count(mapping(entry.get("details")).get("context_length")) or None


def _on_gpu(running: Mapping[str, Any]) -> float | None:
    """The share of a loaded model in GPU memory; the CPU processes the rest."""
    size = count(running.get("size"))
    return min(count(running.get("size_vram")) / size, 1.0) if size else None
