"""Reads the values inside a reply; a value of another kind than expected counts as missing."""

import re
from collections.abc import Mapping
from typing import Any

from vlmbatch.strict_json import whole

LARGEST = 2**53
"""The largest number of a reply: all whole numbers up to it are exact."""
LONGEST_VERSION = 100
"""The most characters of a version. Builds from source have the longest versions, of about fifty."""
_NUMBER = re.compile(r"\s*-?[0-9]{1,20}(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,3})?\s*")


def mapping(value: object) -> Mapping[str, Any]:
    """A JSON object inside a reply; empty if the value is anything else."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The JSON objects of a list inside a reply; empty if the value is anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def string(value: object) -> str:
    """A string inside a reply, with U+FFFD for half characters; empty if the value is anything else."""
    return whole(value) if isinstance(value, str) else ""


def version(value: object) -> str | None:
    """The version of an engine inside a reply; None if the value is anything else.

    A text is no version if it is empty, longer than 100 characters, or has a control character.
    """
    text = string(value)
    return text if 0 < len(text) <= LONGEST_VERSION and text.isprintable() else None


def number(value: object) -> float | None:
    """A number inside a reply, also one that is written as text; None if the value is anything else.

    NaN, infinite numbers and those beyond 2**53 are None: no server measures them.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value) is not None:
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -LARGEST <= value <= LARGEST else None


def unusable(reply: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """A warning for each of these values of a reply that is negative or not a number; none if missing."""
    return tuple(
        f"the endpoint sent no usable number for {name}"
        for name in names
        if reply.get(name) is not None and ((found := number(reply[name])) is None or found < 0)
    )


def count(value: object) -> int:
    """A token count inside a reply, also one that is written as text; 0 if the value is anything else."""
    found = number(value)
    return int(found) if found is not None and found > 0 else 0
