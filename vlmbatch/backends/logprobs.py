"""Requests log probabilities of the tokens, and reads them from the replies of both APIs."""

from collections.abc import Mapping
from typing import Any

from vlmbatch.backends.values import mappings, number, string

MISSING = "the endpoint sent no logprobs"


def logprobs_parameters(number: int | None) -> dict[str, Any]:
    """The request parameters for the logprobs of the chosen tokens, and of `number` alternatives to each."""
    if number is None:
        return {}
    return {"logprobs": True, **({"top_logprobs": number} if number else {})}


def logprobs_in(value: object, number: int | None) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """The record's `logprobs`, and a warning if they were requested and the reply has none."""
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
        alternatives = mappings(item.get("top_logprobs"))[:number]
        token["top"] = [
            {"token": string(other.get("token")), "logprob": _finite(other.get("logprob"))}
            for other in alternatives
        ]
    return token


def _finite(value: object) -> float:
    """The rounded number, or -9999, OpenAI's value for an impossible token, since JSON has no infinity."""
    known = number(value)
    return -9999.0 if known is None else round(known, 6)
