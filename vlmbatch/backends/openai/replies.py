"""Reads models, answers, costs and load from the replies of servers with the OpenAI API."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmbatch.backends.classify.body import error_in, names_in
from vlmbatch.backends.classify.streams import text_of
from vlmbatch.backends.values import count, mapping, mappings, number, string, unusable
from vlmbatch.errors import TransientError
from vlmbatch.finish_reasons import reason_in, word_of
from vlmbatch.records import Load, ModelFacts, Usage
from vlmbatch.strict_json import whole


def first_choice(reply: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The first choice and its message; raises TransientError if there is none, or if it has an error."""
    choice = next(iter(mappings(reply.get("choices"))), {})
    message = choice.get("message")
    if not isinstance(message, dict):
        told = f"the reply has no choices[0].message; {names_in(reply)}"
        raise TransientError(told, kind="bad_response")
    if choice.get("error") and word_of(reason_in(choice.get("finish_reason"))) == "error":  # OpenRouter
        told = f"the engine failed while it answered: {error_in(choice)}"
        raise TransientError(told, kind="bad_response", partial=answer_text(message) or None)
    return choice, message


def answer_text(message: Mapping[str, Any]) -> str:
    """The answer. Mistral's thinking models send a list of parts."""
    return whole(text_of(message.get("content")))


def thoughts(message: Mapping[str, Any]) -> str:
    """The reasoning of the model; vLLM has used both names."""
    return string(message.get("reasoning")) or string(message.get("reasoning_content"))


def takes_images(model: Mapping[str, Any]) -> bool | None:
    """Whether the listing says that the model accepts images; None if it does not say."""
    modalities = mapping(model.get("architecture")).get("input_modalities")
    return "image" in modalities if isinstance(modalities, list) else None


def sees_in(model: Mapping[str, Any], props: Mapping[str, Any]) -> bool | None:
    """Whether a listed model accepts images; `props` are those of llama.cpp's server, and count first."""
    vision = mapping(props.get("modalities")).get("vision")
    return vision if isinstance(vision, bool) else takes_images(model)


def hosted_note(hosted: bool, place: str) -> tuple[str, ...]:
    """A note that images leave this machine, for a hosted server."""
    return (f"{place} is hosted: images leave this machine",) if hosted else ()


def context_of(model: Mapping[str, Any]) -> int | None:
    """The context of a listed model in tokens, as vLLM, llama.cpp's server and hosted servers report it."""
    meta = mapping(model.get("meta"))
    contexts = (model.get("max_model_len"), meta.get("n_ctx"), model.get("context_length"))
    return next(filter(None, map(count, contexts)), None)


def facts_of(
    name: str, model: Mapping[str, Any], props: Mapping[str, Any], backend: str, place: str
) -> ModelFacts:
    """The facts of a listed model; `props` are those of llama.cpp's server about this model.

    vLLM and llama.cpp load their model when they start; for other servers `loaded` is unknown.
    """
    owner, meta = model.get("owned_by"), mapping(model.get("meta"))
    return ModelFacts(
        name=name,
        backend=backend,
        endpoint=place,
        bytes=count(meta.get("size")) or None,
        parameters=_in_short(count(meta.get("n_params"))) or None,
        quantization=string(props.get("model_ftype")) or string(meta.get("ftype")) or None,
        context=context_of(model),
        sees=sees_in(model, props),
        loaded=True if owner in ("vllm", "llamacpp") else None,
    )


def _in_short(parameters: int) -> str:
    """`8.3B` or `135M`, the format of Ollama."""
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.3g}M" if parameters else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """The tokens and the cost of an answer, as the endpoint reports them.

    `owes_cost`: it reports a cost that cannot be used. `warnings` name the numbers that cannot be used.
    """

    tokens: Usage
    cost: float | None
    owes_cost: bool
    warnings: tuple[str, ...]


def used_in(reply: Mapping[str, Any]) -> Used:
    """What an answer used; some servers, such as OpenRouter, report its cost in US dollars."""
    told = mapping(reply.get("usage"))
    cost = number(told.get("cost"))
    return Used(
        tokens=Usage(
            input_tokens=count(told.get("prompt_tokens")), output_tokens=count(told.get("completion_tokens"))
        ),
        cost=cost if cost is not None and cost >= 0 else None,
        owes_cost=bool(unusable(told, "cost")),
        warnings=unusable(told, "prompt_tokens", "completion_tokens", "cost"),
    )


def response_format(schema: str | None) -> dict[str, Any]:
    """The request parameter for an answer that fits this JSON Schema."""
    if schema is None:
        return {}
    named = {"name": "answer", "schema": json.loads(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def busy_s(reply: Mapping[str, Any]) -> float:
    """Seconds of work of the engine itself, reported by llama.cpp's server; 0 for other servers."""
    timings = mapping(reply.get("timings"))
    spent = [number(timings.get(name)) for name in ("prompt_ms", "predicted_ms")]
    return sum(ms for ms in spent if ms is not None and ms > 0) / 1000


GAUGES = (
    ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
    ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
)
"""The names of the two numbers; each may appear once for every engine or model."""
_SAMPLE = re.compile(
    r"^([a-z]+:\w+)(?:\{.*\})?[ \t]+(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\b", re.MULTILINE | re.IGNORECASE
)


def load_in(text: str) -> Load | None:
    """The load in Prometheus' text format, summed over all engines; None unless both numbers are present."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        sums[name] = sums.get(name, 0.0) + (number(value) or 0.0)
    for running, waiting in GAUGES:
        if running in sums and waiting in sums:
            return Load(running=round(sums[running]), waiting=round(sums[waiting]))
    return None
