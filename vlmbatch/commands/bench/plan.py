"""What to measure: the levels of load, and for how long."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from vlmbatch.config.spec import flag, parse_duration, require
from vlmbatch.errors import ConfigError

N = TypeVar("N", int, float)

LADDER = (1, 2, 4, 8, 16, 32, 64)
"""The usual numbers of requests at once."""
MOST_AT_ONCE = 4096
FASTEST_PER_S = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The measurement. `loads` are numbers of requests at once, or if `is_open` requests per second.

    Each load is kept up for `warm_up_s` seconds, which do not count, and then for `seconds`. `stops_early`:
    end before the last load if the throughput no longer grows.
    """

    loads: tuple[float, ...] = LADDER
    is_open: bool = False
    seconds: float = 10.0
    warm_up_s: float = 3.0
    stops_early: bool = False

    @classmethod
    def of(cls, *, levels: str | None, rate: str | None, seconds: str, warm_up: str) -> Self:
        """The plan for the texts of the flags with these names.

        Raises:
            ConfigError: a text is wrong, or both `levels` and `rate` are given.
        """
        require(
            levels is None or rate is None,
            "--levels and --rate are both set; keep --levels for a number of requests at once, or --rate for "
            "a number of requests per second",
        )
        loads: tuple[float, ...] = LADDER
        if levels is not None:
            loads = _numbers(levels, "levels", r"\d{1,9}", int, MOST_AT_ONCE, "1,4,16")
        if rate is not None:
            loads = _numbers(rate, "rate", r"\d{1,9}(\.\d{1,9})?", float, FASTEST_PER_S, "0.5,1,2")
        plan = cls(
            loads=loads,
            is_open=rate is not None,
            seconds=_duration(seconds, "seconds"),
            warm_up_s=_duration(warm_up, "warm_up"),
            stops_early=levels is None and rate is None,
        )
        require(plan.seconds > 0, "--seconds must be more than 0; write for example --seconds 10")
        return plan


def _numbers(
    text: str, name: str, pattern: str, parse: Callable[[str], N], most: int, example: str
) -> tuple[N, ...]:
    """The numbers in the text, each once and in ascending order."""
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(pattern, word, re.ASCII) for word in words):
        raise ConfigError(
            f"{flag(name)} {text} is not a list of numbers; write for example {flag(name)} {example}"
        )
    numbers = sorted(set(map(parse, words)))
    require(
        numbers[0] > 0 and numbers[-1] <= most,
        f"{flag(name)} takes numbers above 0 and up to {most}; write for example {flag(name)} {example}",
    )
    return tuple(numbers)


def _duration(text: str, name: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{flag(name)}: {error}") from error
