"""The rates and the remaining time of a run, with a clock that the test sets."""

import threading
import tracemalloc
from dataclasses import replace

import pytest
from run_events import ANSWERED, PAUSED, RESUMED, STARTED
from written_results import answered

from vlmbatch.events import ImageFinished, ImagesSkipped, TotalKnown
from vlmbatch.observers.meter import Meter
from vlmbatch.records import Completion, Usage


class Clock:
    """A clock whose time the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rates_are_of_the_last_half_minute() -> None:
    """Images from a minute ago do not count for the rates."""
    clock = Clock()
    meter = Meter(clock)
    meter.update(STARTED)
    answer = Completion(text="x", model="m", finish_reason="stop", usage=Usage(output_tokens=50))
    event = ImageFinished(result=replace(answered("a"), completion=answer))
    for seconds in range(1, 101):  # one a second, then four a second
        clock.now = seconds
        meter.update(event)
    for quarter in range(1, 401):
        clock.now = 100 + quarter / 4
        meter.update(event)
    assert meter.rates() == pytest.approx((4, 200), rel=0.02)
    meter.update(TotalKnown(total=900))
    assert meter.eta_s() == pytest.approx(100, rel=0.02)


def test_the_memory_of_many_images_stays_flat() -> None:
    """Two minutes with 2,000 images a second take as much memory as one, even if no rate is read."""
    clock = Clock()
    meter = Meter(clock)
    meter.update(STARTED)

    def bytes_after_a_minute() -> int:
        for _ in range(120_000):
            clock.now += 1 / 2000
            meter.update(ANSWERED)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first, second = bytes_after_a_minute(), bytes_after_a_minute()
    finally:
        tracemalloc.stop()
    assert second - first < 4096
    assert meter.rates()[0] == pytest.approx(2000, rel=0.02)


def test_the_rate_of_a_slow_endpoint_does_not_drop_to_nothing() -> None:
    """If an image takes a minute, the rate is that of the last ten images, and there is an ETA."""
    clock = Clock()
    meter = Meter(clock)
    for event in (STARTED, TotalKnown(total=30)):
        meter.update(event)
    for minute in range(1, 21):
        clock.now = minute * 60
        meter.update(ANSWERED)
    images_s, _ = meter.rates()
    assert images_s == pytest.approx(1 / 60)
    assert meter.eta_s() == pytest.approx(600)
    clock.now += 50
    assert meter.rates()[0] == pytest.approx(10 / 650)


def test_the_eta_may_be_unknown() -> None:
    """There is no ETA without a total, before the first answer and while the endpoint is down."""
    clock = Clock()
    meter = Meter(clock)
    clock.now = 1
    has_eta = []
    for event in (STARTED, ANSWERED, TotalKnown(total=4), ImagesSkipped(skipped=1), PAUSED, RESUMED):
        meter.update(event)
        clock.now += 1
        has_eta.append(meter.eta_s() is not None)
    assert has_eta == [False, False, True, True, False, True]
    assert meter.done == 2


def test_the_state_of_a_queue() -> None:
    """While records come from a queue, the state names the queue, and no number of requests."""
    meter = Meter(searching="waiting for the first record")
    states = [meter.state]
    for event in (replace(STARTED, concurrency=0), PAUSED, RESUMED):
        meter.update(event)
        states.append(meter.state)
    assert states == ["waiting for the first record", "queue up", "queue down, waiting", "queue up"]


def test_counts_are_right_while_another_thread_reads() -> None:
    """The counts are right and nothing is raised while another thread reads the meter."""
    meter = Meter()
    ended = threading.Event()
    faults: list[BaseException] = []

    def read() -> None:
        try:
            while not ended.is_set():
                meter.line()
        except BaseException as fault:  # noqa: BLE001  # passed on to the test's thread
            faults.append(fault)

    reading = threading.Thread(target=read)
    reading.start()
    for _ in range(20_000):
        meter.update(ANSWERED)
    ended.set()
    reading.join()
    assert not faults
    assert meter.done == 20_000
