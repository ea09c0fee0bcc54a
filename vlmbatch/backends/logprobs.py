"""Requests log probabilities of the tokens, and reads them from the replies of both APIs."""

import math
from collections.abc import Mapping
from typing import Any

from vlmbatch.backends.values import mappings, number, string

MISSING = "the endpoint sent no logprobs"
IMPOSSIBLE = -9999.0
"""OpenAI's value for an impossible token, since JSON has no infinity."""
ODD = f"some logprobs of the endpoint are not usable numbers; the record has {IMPOSSIBLE:.0f} for each"
SPARE_TOKENS = 1024
"""Servers may send more tokens than requested, for example those of a short thinking."""


def logprobs_parameters(number: int | None) -> dict[str, Any]:
    """The request parameters for the logprobs of the chosen tokens, and of `number` alternatives to each."""
    if number is None:
        return {}
    return {"logprobs": True, **({"top_logprobs": number} if number else {})}


def logprobs_in(
    value: object, number: int | None, max_tokens: int | None = None
) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """The record's `logprobs`, and warnings if they were requested and the reply has none, or odd ones.

    Of more than twice `max_tokens` and SPARE_TOKENS tokens, only the first ones are kept.
    """
    if number is None:
        return None, ()
    sent = mappings(value)
    kept = sent if max_tokens is None else sent[: 2 * max_tokens + SPARE_TOKENS]
    if not kept:
        return None, (MISSING,)
    tokens = [_token(item, number) for item in kept]
    mean = sum(token["logprob"] for token in tokens) / len(tokens)
    cut = f"the endpoint sent logprobs of {len(sent):,} tokens; the record has the first {len(kept):,}"
    warnings = (*((ODD,) if any(map(_is_odd, kept)) else ()), *((cut,) if len(sent) > len(kept) else ()))
    return {"mean": round(mean, 6), "tokens": tokens}, warnings


def _token(item: Mapping[str, Any], number: int) -> dict[str, Any]:
    token: dict[str, Any] = {"token": string(item.get("token")), "logprob": _finite(item.get("logprob"))}
    if number:
        alternatives = mappings(item.get("top_logprobs"))[:number]
        token["top"] = [
            {"token": string(other.get("token")), "logprob": _finite(other.get("logprob"))}
            for other in alternatives
        ]
    return token


def _is_odd(item: Mapping[str, Any]) -> bool:
    """Whether a logprob of this token or its alternatives is neither a number nor minus infinity."""
    values = [each.get("logprob") for each in (item, *mappings(item.get("top_logprobs")))]
    return any(value not in (None, -math.inf) and number(value) is None for value in values)


def _finite(value: object) -> float:
    known = number(value)
    return IMPOSSIBLE if known is None else round(known, 6)
