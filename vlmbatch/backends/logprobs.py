"""How sure a model was of its words, out of the replies of both wires."""

import math
from collections.abc import Mapping
from typing import Any

from vlmbatch.backends.http.wire import mappings, string

MISSING = "the endpoint sent no logprobs"


def logprobs_parameters(number: int | None) -> dict[str, Any]:
    """What asks for them: those of the chosen tokens, and of so many alternatives to each."""
    if number is None:
        return {}
    return {"logprobs": True, **({"top_logprobs": number} if number else {})}


def logprobs_in(value: object, number: int | None) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """The record's `logprobs`, and a warning where they were asked for and did not come."""
    if number is None:
        return None, ()
    tokens = [_token(item, number) for item in mappings(value)]
    if not tokens:
        return None, (MISSING,)
    mean = sum(token["logprob"] for token in tokens) / len(tokens)
    return {"mean": round(mean, 6), "tokens": tokens}, ()


def _token(item: Mapping[str, Any], number: int) -> dict[str, Any]:
    token: dict[str, Any] = {"token": string(item.get("token")), "logprob": _finite(item.get("logprob"))}
    if number:
        others = mappings(item.get("top_logprobs"))[:number]
        token["top"] = [
            {"token": string(other.get("token")), "logprob": _finite(other.get("logprob"))}
            for other in others
        ]
    return token


def _finite(value: object) -> float:
    """JSON has no infinity; -9999 is how OpenAI writes a token that could not be."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return round(float(value), 6) if is_number and math.isfinite(value) else -9999.0  # type: ignore[arg-type]
