"""Asks Ollama which models are loaded now. The answer is a hint: a run goes on without it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from vlmbatch.backends.ollama.hints import OllamaHints
from vlmbatch.backends.values import count, mappings, string
from vlmbatch.errors import BackendError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A loaded model; its context is in tokens, None if Ollama does not report it.

    `until` is the time at which Ollama unloads it if it gets no request, None if it is unknown.
    """

    name: str
    context: int | None
    until: datetime | None


async def loaded_models(hints: OllamaHints) -> list[LoadedModel]:
    """The loaded models; empty if Ollama does not report them."""
    try:
        reply = await hints.loaded()
    except BackendError:
        return []
    return [
        LoadedModel(
            name=(string(entry.get("name")) or string(entry.get("model"))).removesuffix(":latest"),
            context=count(entry.get("context_length")) or None,
            until=_time(string(entry.get("expires_at"))),
        )
        for entry in mappings(reply.object.get("models"))
    ]


def _time(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
