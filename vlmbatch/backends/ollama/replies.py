"""Reads facts about models and answers from the replies of Ollama."""

from collections.abc import Mapping
from typing import Any

from vlmbatch.backends.classify.body import names_in
from vlmbatch.backends.values import count, mapping, string
from vlmbatch.config.spec import redact
from vlmbatch.errors import TransientError

RELOAD_S = 1.0
MOST_TEXT = 200
"""The most characters of a fact about a model."""


def context_of(shown: Mapping[str, Any]) -> int | None:
    """The model's context length in tokens; newer versions list it, too."""
    info = mapping(shown.get("model_info"))
    lengths = (count(info[key]) for key in info if key.endswith(".context_length"))
    return next(lengths, 0) or count(mapping(shown.get("details")).get("context_length")) or None


def architecture_of(shown: Mapping[str, Any]) -> str | None:
    """The architecture of the model, for example `qwen25vl`."""
    family = string(mapping(shown.get("details")).get("family"))
    return family or string(mapping(shown.get("model_info")).get("general.architecture")) or None


def facts_in(shown: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts that vlmbatch uses, in the form of the reply; the reply itself may have large texts."""
    words, details = capabilities_of(shown), mapping(shown.get("details"))
    sizes = ("parameter_size", "quantization_level")
    return {
        "capabilities": None if words is None else [word for word in ("vision", "thinking") if word in words],
        "details": {name: string(details.get(name))[:MOST_TEXT] for name in sizes},
        "model_info": {".context_length": context_of(shown)},
        "remote_host": string(shown.get("remote_host"))[:MOST_TEXT],
    }


def remote_host_of(name: str, *replies: Mapping[str, Any]) -> str:
    """The remote host of a model, by the replies about it; empty if Ollama runs the model itself."""
    place = next(filter(None, (string(reply.get("remote_host")) for reply in replies)), "")
    in_cloud = name.endswith(("-cloud", ":cloud"))
    return redact(place) or ("in Ollama's cloud" if place or in_cloud else "")


def remote_note(name: str, *replies: Mapping[str, Any]) -> tuple[str, ...]:
    """A note that images leave this machine, for a model on a remote host."""
    where = remote_host_of(name, *replies)
    return (f"{name} runs elsewhere ({where}): images leave this machine",) if where else ()


def message_in(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message of an answer; raises TransientError if the reply has none."""
    message = reply.get("message")
    if not isinstance(message, dict):
        raise TransientError(f"the reply has no message; {names_in(reply)}", kind="bad_response")
    return message


def reload_s(reply: Mapping[str, Any]) -> float:
    """Seconds of a reload for this answer, of a model that had been loaded before."""
    took_s = count(reply.get("load_duration")) / 1e9
    return took_s if took_s > RELOAD_S else 0.0


def busy_s(reply: Mapping[str, Any]) -> float:
    """Seconds of work of the engine itself, without loading the model and without the queue."""
    return (count(reply.get("prompt_eval_duration")) + count(reply.get("eval_duration"))) / 1e9


def cut_prompt(tokens: int, num_ctx: int | None) -> tuple[str, ...]:
    """A warning for a prompt that fills the whole context: old servers truncate it silently."""
    if num_ctx is None or tokens < num_ctx - 1:
        return ()
    return (f"the prompt filled the context of {num_ctx} tokens and may have been cut",)


def capabilities_of(reply: Mapping[str, Any]) -> list[object] | None:
    """The capabilities of a model; None if this Ollama does not report them."""
    known = reply.get("capabilities")
    return known if isinstance(known, list) else None


def vision_note(name: str, capabilities: list[object] | None) -> tuple[str, ...]:
    """A note if the server does not report the capabilities of its models."""
    if capabilities is not None:
        return ()
    return (f"this Ollama does not report whether {name} can see images; version 0.6.4 and later do",)
