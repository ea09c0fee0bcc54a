"""Reads the answer in a stored record. A user, or the maker of a data set, may have edited the record."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

from vlmbatch import strict_json
from vlmbatch.errors import FailureKind
from vlmbatch.images import ImageFacts
from vlmbatch.records import (
    Answered,
    Completion,
    Endpoint,
    Failure,
    Fallback,
    FallbackReason,
    Result,
    Usage,
    content_of,
)

_LARGEST = 1 << 53
"""Other programs do not read larger whole numbers exactly."""


def answered_in(record: Mapping[str, Any] | None, content: str, *, in_output: bool) -> Answered | None:
    """The answer in a record about this content; None if it holds none, or a value of a wrong type."""
    try:
        if record is None or record["status"] != "ok":
            return None
        image, *more_images = (_facts(facts) for facts in record.get("images") or [record["image"]])
        if content_of(_text(facts.sha256) for facts in (image, *more_images)) != content:
            return None
        return Answered(
            id=_text(record["id"]) if in_output else None,
            outcome=_completion(record),
            image=image,
            more_images=tuple(more_images),
            endpoint=Endpoint(
                backend=_text(record["backend"]),
                url=_text(record["endpoint"]),
                model=_text(record["model"]),
            ),
            fallback=_fallback(record["fallback"]) if record.get("fallback") else None,
        )
    except (KeyError, TypeError, AttributeError):
        return None


def result_of(record: Mapping[str, Any]) -> Result:
    """The result whose to_record() is this record.

    Keys that it does not know are left out.

    Raises:
        ValueError: it is no record of version 1.
    """
    try:
        return _result(record)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a record: {str(error)[:200]}") from error


def _result(record: Mapping[str, Any]) -> Result:
    is_ok = record["status"] == "ok"
    if type(record["v"]) is not int or record["v"] != 1 or not (is_ok or record["status"] == "error"):
        raise TypeError("the version or the status is not known")
    image, *more_images = (_facts(facts) for facts in record.get("images", [record["image"]]))
    cost, fallback, duplicate_of = map(record.get, ("cost", "fallback", "duplicate_of"))
    cached = record.get("cached", False)
    if not isinstance(record["warnings"], list) or not isinstance(cached, bool):
        raise TypeError("the warnings are not a list, or `cached` is not true or false")
    return Result(
        id=_text(record["id"]),
        endpoint=Endpoint(
            backend=_text(record["backend"]), url=_text(record["endpoint"]), model=_text(record["model"])
        ),
        run=_text(record["run"]),
        started_at=_time(record["started_at"]),
        duration_s=_number(record["duration_s"]),
        completion=_stored_completion(record) if is_ok else None,
        failure=None if is_ok else _failure(record["error"]),
        image=image,
        more_images=tuple(more_images),
        prompt=_text(record["prompt"]),
        attempts=_number(record["attempts"], (int,)),
        warnings=tuple(map(_text, record["warnings"])),
        duplicate_of=None if duplicate_of is None else _text(duplicate_of),
        cached=cached,
        fallback=None if fallback is None else _fallback(fallback),
        cost=None if cost is None else _number(cost),
    )


def _time(value: object) -> datetime:
    """The time in UTC; raises ValueError, also without a time zone, and OverflowError."""
    time = datetime.fromisoformat(_text(value))
    if time.tzinfo is None:
        raise ValueError("the time has no time zone")
    return time.astimezone(UTC)


def _stored_completion(record: Mapping[str, Any]) -> Completion:
    """The completion with its usage; raises ValueError for NaN, and for data that are nested too deep."""
    completion = _completion(record)
    for value in (completion.data, completion.logprobs):
        strict_json.loads(json.dumps(value))
    return replace(completion, usage=_usage(record["usage"]))


def _usage(stored: Mapping[str, Any]) -> Usage:
    for value in stored.values():
        _number(value, (int,))
    return Usage(**stored)


def _failure(stored: Mapping[str, Any]) -> Failure:
    if stored["kind"] not in get_args(FailureKind) or not isinstance(stored["retryable"], bool):
        raise TypeError("not a known failure")
    partial = stored["partial"]
    return Failure(
        kind=stored["kind"],
        message=_text(stored["message"]),
        retryable=stored["retryable"],
        partial=None if partial is None else _text(partial),
    )


def _completion(record: Mapping[str, Any]) -> Completion:
    logprobs, warnings = record.get("logprobs"), record["warnings"]
    if not isinstance(logprobs, dict | None) or not isinstance(warnings, list):
        raise TypeError("the logprobs are not an object, or the warnings are not a list")
    return Completion(
        text=_text(record["response"]),
        model=_text(record["model"]),
        finish_reason=_text(record["finish_reason"]),
        warnings=tuple(map(_text, warnings)),
        data=record.get("data"),
        logprobs=logprobs,
    )


def _facts(stored: Mapping[str, Any]) -> ImageFacts:
    for name, value in stored.items():
        if value is None:
            continue
        if name == "sha256":
            _text(value)
        else:
            _number(value, (int, float) if name == "mtime" else (int,))
    return ImageFacts(**stored)


def _fallback(stored: Mapping[str, Any]) -> Fallback:
    for value in stored.values():
        _text(value)
    if stored["reason"] not in get_args(FallbackReason) or stored["kind"] not in get_args(FailureKind):
        raise TypeError("not a known reason")
    return Fallback(**stored)


def _number(value: Any, types: tuple[type, ...] = (int, float)) -> Any:
    """The value; raises TypeError unless it is a number of these types that any program can read."""
    if type(value) not in types or not -_LARGEST <= value <= _LARGEST:
        raise TypeError("not a number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
