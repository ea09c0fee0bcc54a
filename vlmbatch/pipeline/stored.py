"""Reads the answer in a stored record. A user, or the maker of a data set, may have edited the record."""

from collections.abc import Mapping
from typing import Any, get_args

from vlmbatch.errors import FailureKind
from vlmbatch.images import ImageFacts
from vlmbatch.records import Answered, Completion, Endpoint, Fallback, FallbackReason, content_of

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
        if name == "sha256":
            _text(value)
        elif value is not None:
            _check_number(value, (int, float) if name == "mtime" else (int,))
    return ImageFacts(**stored)


def _fallback(stored: Mapping[str, Any]) -> Fallback:
    for value in stored.values():
        _text(value)
    if stored["reason"] not in get_args(FallbackReason) or stored["kind"] not in get_args(FailureKind):
        raise TypeError("not a known reason")
    return Fallback(**stored)


def _check_number(value: Any, types: tuple[type, ...]) -> None:
    """Raise TypeError unless it is a number of these types that any program can read."""
    if type(value) not in types or not -_LARGEST <= value <= _LARGEST:
        raise TypeError("not a number")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
