"""The memory of the parts that receive every result of a run, with many results."""

import os
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from run_events import STARTED
from written_results import answered, failed

from vlmbatch.cli.early_end import EarlyEnd
from vlmbatch.cli.quiet_end import QuietEnd
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.events import Event, ImageFinished, RetryScheduled, ignore
from vlmbatch.observers import Bar, JsonLog, Lines
from vlmbatch.observers.prometheus import Metrics
from vlmbatch.pipeline.anomalies import SystemicFailures
from vlmbatch.pipeline.run_statistics import RunStatistics
from vlmbatch.protocols import quiet
from vlmbatch.records import Result

RESULTS = 3_000
LEAST_BYTES = 8
"""A reference to each result, or to each image, takes at least this much."""


def results(first: int) -> Iterator[Result]:
    """Results that are all different; one in ten is a failure."""
    for number in range(first, first + RESULTS):
        image = f"{number}.jpg"
        yield answered(image, f"answer {number}") if number % 10 else failed(image, kind="bad_image")


def grown(take: Callable[[Result], object]) -> int:
    """How many bytes more are in use after the second half of many results than after the first."""
    tracemalloc.start()
    try:
        for result in results(0):
            take(result)
        before = tracemalloc.get_traced_memory()[0]
        for result in results(RESULTS):
            take(result)
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def events(observer: Callable[[Event], object]) -> Callable[[Result], None]:
    """Pass each result to this observer, and before it a retry."""
    observer(STARTED)

    def take(result: Result) -> None:
        observer(RetryScheduled(id=result.id, attempt=1, delay_s=1.0, kind="timeout", message=result.id))
        observer(ImageFinished(result=result))

    return take


@pytest.mark.parametrize("name", ["bar", "lines", "log", "quiet", "early_end", "metrics"])
def test_no_observer_grows_with_the_number_of_results(name: str) -> None:
    """No observer stores an entry for each image, even if nothing is drawn or read."""
    config = RunConfig.of("photos")
    with open(os.devnull, "w") as nowhere:
        observers: dict[str, Callable[[], Callable[[Event], object]]] = {
            "bar": lambda: Bar(nowhere),
            "lines": lambda: Lines(nowhere),
            "log": lambda: JsonLog(nowhere),
            "quiet": lambda: QuietEnd(config),
            "early_end": lambda: EarlyEnd(config),
            "metrics": Metrics,
        }
        assert grown(events(observers[name]())) < LEAST_BYTES * RESULTS


def test_the_counts_of_a_run_do_not_grow_with_the_number_of_results() -> None:
    """The statistics and the search for anomalies store no entry for each image."""
    statistics = RunStatistics()
    systemic = SystemicFailures(quiet, lambda: False, Bugs(ignore))

    def take(result: Result) -> None:
        systemic.look_at(result)
        statistics.add(result)

    assert grown(take) < LEAST_BYTES * RESULTS
