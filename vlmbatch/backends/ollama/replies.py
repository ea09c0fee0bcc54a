"""What Ollama tells of models and answers, read out of its replies."""

from collections.abc import Mapping
from typing import Any

from vlmbatch.backends.http.wire import count, mapping, string
from vlmbatch.config.spec import redact

RELOAD_S = 1.0


def entry_of(name: str, models: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The listed model of this name, typed with or without its tag."""
    return models.get(name) or models.get(f"{name}:latest") or {}


def context_of(shown: Mapping[str, Any]) -> int | None:
    """The model's context length in tokens."""
    info = mapping(shown.get("model_info"))
    return next((count(info[key]) or None for key in info if key.endswith(".context_length")), None)


def architecture_of(shown: Mapping[str, Any]) -> str | None:
    """What kind of model it is, as `qwen25vl`."""
    family = string(mapping(shown.get("details")).get("family"))
    return family or string(mapping(shown.get("model_info")).get("general.architecture")) or None


def remote_host_of(name: str, *told: Mapping[str, Any]) -> str:
    """Where a model runs that Ollama only passes on, as one of the replies about it tells; else empty."""
    place = next(filter(None, (string(reply.get("remote_host")) for reply in told)), "")
    in_cloud = name.endswith(("-cloud", ":cloud"))
    return redact(place) or ("in Ollama's cloud" if place or in_cloud else "")


def remote_note(name: str, *told: Mapping[str, Any]) -> tuple[str, ...]:
    """A note for a model that Ollama only passes on."""
    where = remote_host_of(name, *told)
    return (f"{name} runs elsewhere ({where}): images leave this machine",) if where else ()


def reload_s(reply: Mapping[str, Any]) -> float:
    """Seconds the model was loaded for this answer, though it had been loaded before it was asked for."""
    took_s = count(reply.get("load_duration")) / 1e9
    return took_s if took_s > RELOAD_S else 0.0


def busy_s(reply: Mapping[str, Any]) -> float:
    """Seconds that the engine itself worked on this answer; the rest of the time it was loaded or queued."""
    return (count(reply.get("prompt_eval_duration")) + count(reply.get("eval_duration"))) / 1e9


def cut_prompt(tokens: int, num_ctx: int | None) -> tuple[str, ...]:
    """A warning for a prompt that fills the whole context: old servers cut it without a word."""
    if num_ctx is None or tokens < num_ctx - 1:
        return ()
    return (f"the prompt filled the context of {num_ctx} tokens and may have been cut",)


def capabilities_of(told: Mapping[str, Any]) -> list[object] | None:
    """What a model can do; None where this Ollama does not tell."""
    known = told.get("capabilities")
    return known if isinstance(known, list) else None
