"""The results of a measurement: the counts of each level, its percentiles, and the knee."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vlmbatch.errors import BackendError, FailureKind
from vlmbatch.records import Endpoint

ENOUGH = 0.95
"""The knee has at least this part of the best throughput."""
GROWTH = 1.05
"""A level grows if its throughput is at least this many times the best one before it."""
REFUSALS = (429, 503)


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts the requests of one level while it is measured; the warm-up does not count.

    `span_s` is the time in seconds by which the counts are divided. `offered` counts the planned arrivals of
    an open loop, and `capped` says that one of them had to wait in this client.
    """

    latencies_s: list[float] = field(default_factory=list)
    output_tokens: int = 0
    refused: int = 0
    failures: Counter[FailureKind] = field(default_factory=Counter)
    span_s: float = 0.0
    offered: int = 0
    capped: bool = False
    error: BackendError | None = None
    """The first error."""

    def answered(self, latency_s: float, output_tokens: int) -> None:
        """Count an answer."""
        self.latencies_s.append(latency_s)
        self.output_tokens += output_tokens

    def failed(self, error: BackendError) -> None:
        """Count a failure: as refused if the endpoint is too busy (429, 503), else by its kind."""
        self.error = self.error or error
        if error.kind == "busy" or error.status in REFUSALS:
            self.refused += 1
        else:
            self.failures[error.kind] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What was measured at one load: requests at once, or for an open loop requests per second.

    Latencies are those of answers in seconds; None without any answer. `offered_per_s` is the rate at which
    requests really arrived in an open loop. `client_cpu` is the part of a processor core that this client
    used, 0 to 1, and `client_late` the part of the time by which it was late, since its machine was busy.
    `error` is the message of the first failure. `is_partial`: the level was stopped early.
    """

    load: float
    requests_per_s: float = 0.0
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None
    answered: int = 0
    refused: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    output_tokens_per_s: float = 0.0
    offered_per_s: float | None = None
    client_cpu: float = 0.0
    client_late: float = 0.0
    capped: bool = False
    error: str | None = None
    is_partial: bool = False

    @property
    def failed(self) -> int:
        """The number of failures, without the refused requests."""
        return sum(self.failures.values())

    @property
    def keeps_up(self) -> bool:
        """Whether the requests of an open loop were answered as fast as they arrived."""
        return self.offered_per_s is not None and self.requests_per_s >= ENOUGH * self.offered_per_s


@dataclass(slots=True, kw_only=True)
class Report:
    """The results so far of `planned` levels, and notes for the user. `endpoint`: None until it is found."""

    is_open: bool
    planned: int
    endpoint: Endpoint | None = None
    levels: list[Level] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> list[Level]:
        """The levels that were measured to their end."""
        return [level for level in self.levels if not level.is_partial]

    @property
    def knee(self) -> Level | None:
        """The best level: see `knee`, or for an open loop `highest_kept_up`."""
        return highest_kept_up(self.whole) if self.is_open else knee(self.whole)


def level_of(tally: Tally, load: float, *, offered_s: float | None = None) -> Level:
    """The level with these counts. `offered_s` is the time in seconds in which an open loop had arrivals."""
    sorted_s = sorted(tally.latencies_s)
    answered = len(sorted_s)
    return Level(
        load=load,
        requests_per_s=answered / tally.span_s if tally.span_s else 0.0,
        p50_s=percentile(sorted_s, 50),
        p90_s=percentile(sorted_s, 90),
        p99_s=percentile(sorted_s, 99),
        max_s=percentile(sorted_s, 100),
        answered=answered,
        refused=tally.refused,
        failures=dict(tally.failures.most_common()),
        output_tokens_per_s=tally.output_tokens / tally.span_s if tally.span_s else 0.0,
        offered_per_s=tally.offered / offered_s if offered_s else None,
        capped=tally.capped,
    )


def load_name(load: float, *, is_open: bool) -> str:
    """The load in words: `8 requests at once`, `0.5 requests/s`."""
    if is_open:
        return f"{load:g} requests/s"
    return "1 request at once" if load == 1 else f"{load:g} requests at once"


def percentile(sorted_values: Sequence[float], percent: int) -> float | None:
    """The smallest value that at least this percentage of the values does not exceed; None without values."""
    if not sorted_values:
        return None
    return sorted_values[max(math.ceil(len(sorted_values) * percent / 100), 1) - 1]


def knee(levels: Sequence[Level]) -> Level | None:
    """The smallest level with at least 95 % of the best throughput; None without any answer."""
    best = max((level.requests_per_s for level in levels), default=0.0)
    enough = (level for level in levels if level.requests_per_s >= ENOUGH * best > 0)
    return min(enough, key=lambda level: level.load, default=None)


def highest_kept_up(levels: Sequence[Level]) -> Level | None:
    """The highest rate with which the endpoint keeps up, as with all lower ones; None without such a rate."""
    highest = None
    for level in sorted(levels, key=lambda level: level.load):
        if not level.keeps_up:
            break
        highest = level
    return highest


def has_stopped_growing(levels: Sequence[Level]) -> bool:
    """Whether the throughput of neither of the last two levels is 5 % above the best one before it."""
    rates = [level.requests_per_s for level in levels]
    return len(rates) > 2 and all(rates[at] < GROWTH * max(rates[:at]) for at in (-2, -1))
