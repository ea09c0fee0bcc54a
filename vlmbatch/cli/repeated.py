"""Options that are given more than once in one command line."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperOption

from vlmbatch.errors import ConfigError

SINGLE = ("prompt", "prompt_file", "schema")
"""Options that decide the question: no value of them may be lost. Of others the last value counts."""
_KEY = "vlmbatch.repeated"


def remember_repeated(context: Any, parsed: Iterable[object]) -> None:
    """Store in the context how often each option was given, if more than once; `parsed` are the parameters.

    Repeatable options do not count. The context comes from a private copy of click inside typer.
    """
    counted = Counter(
        (param.name, param.opts[0])
        for param in parsed
        if isinstance(param, TyperOption) and not param.multiple
    )
    context.meta[_KEY] = {key: times for key, times in counted.items() if times > 1}


def refuse_repeated(context: typer.Context) -> None:
    """Raise ConfigError if a prompt or a schema is given more than once."""
    for (name, flag), times in context.meta[_KEY].items():
        if name in SINGLE:
            raise ConfigError(f"{flag} is given {_often(times)}; keep one")


def repeated_lines(context: typer.Context) -> list[str]:
    """A line for each option that is given more than once; it shows no value, which may be secret."""
    repeated = context.meta[_KEY]
    return [f"{flag} is given {_often(times)}; the last one is used" for (_, flag), times in repeated.items()]


def _often(times: int) -> str:
    return "twice" if times == 2 else f"{times} times"
