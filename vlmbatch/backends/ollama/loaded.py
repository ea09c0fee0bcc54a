"""Asks Ollama which models are loaded now. The answer is a hint: a run goes on without it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vlmbatch.backends.http.wire import count, mappings, string
from vlmbatch.errors import BackendError

PATH = "/api/ps"
HINT_S = 5.0
"""The longest wait for this hint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A loaded model; its context is in tokens, None if Ollama does not report it.

    `until` is the time at which Ollama unloads it if it gets no request, None if it is unknown.
    """

    name: str
    context: int | None
    until: datetime | None


async def loaded_models(ask: Callable[[str], Awaitable[Mapping[str, Any]]]) -> list[LoadedModel]:
    """The loaded models, by a request to a path with `ask`; empty if Ollama does not report them in time."""
    try:
        async with asyncio.timeout(HINT_S):
            listed = mappings((await ask(PATH)).get("models"))
    except (BackendError, TimeoutError):
        return []
    return [
        LoadedModel(
            name=(string(entry.get("name")) or string(entry.get("model"))).removesuffix(":latest"),
            context=count(entry.get("context_length")) or None,
            until=_time(string(entry.get("expires_at"))),
        )
        for entry in listed
    ]


def _time(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
