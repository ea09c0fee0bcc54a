"""The limit that --concurrency auto finds, over simulated endpoints whose time is arithmetic."""

import heapq
import random
from collections.abc import Callable

import pytest

from vlmbatch.endpoints.adaptive import AdaptiveLimit


class Simulated:
    """An endpoint of some slots, half a second an answer, give or take `noise` of it; further ones queue."""

    def __init__(
        self, slots: int, *, noise: float = 0.0, seed: int = 1, refuses_above: int | None = None
    ) -> None:
        self.slots = slots
        self.noise = noise
        self.refuses_above = refuses_above
        self.random = random.Random(seed)
        self.refusals = 0
        self.limits: list[int] = []
        self.times: list[float] = []
        self._now = 0.0
        self._running: list[float] = []
        self._queued = 0

    def work(self, answers: int, limit: Callable[[], int], climber: AdaptiveLimit | None = None) -> None:
        """Bring about so many answers, with as many requests in flight as the limit allows."""
        for _ in range(answers):
            while len(self._running) + self._queued < limit():
                if self.refuses_above and len(self._running) + self._queued >= self.refuses_above:
                    self.refusals += 1
                    if climber:
                        climber.overloaded()
                    break
                self._queued += 1
                self._start()
            self._now = heapq.heappop(self._running)
            self._start()
            if climber:
                climber.answered(self._now, waiting=True)
            self.limits.append(limit())
            self.times.append(self._now)

    def rate(self, last: int) -> float:
        """Answers a second over the last ones."""
        return last / (self.times[-1] - self.times[-1 - last])

    def _start(self) -> None:
        while self._queued and len(self._running) < self.slots:
            self._queued -= 1
            latency = 0.5 * (1 + self.noise * self.random.uniform(-1, 1))
            heapq.heappush(self._running, self._now + latency)


def climbed(endpoint: Simulated, answers: int, start: int = 4, most: int = 256) -> AdaptiveLimit:
    climber = AdaptiveLimit(start, most)
    endpoint.work(answers, lambda: climber.limit, climber)
    return climber


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("slots", [1, 2, 4, 8, 16, 48, 64, 100])
def test_it_ends_near_the_best_fixed_limit(slots: int, noise: float) -> None:
    """In its second half a run gets at least nine tenths of what the best fixed limit gets."""
    answers = max(600, 80 * slots)
    best = Simulated(slots, noise=noise)
    best.work(answers, lambda: 2 * slots)
    found = Simulated(slots, noise=noise)
    climbed(found, answers)
    assert found.rate(answers // 2) >= 0.9 * best.rate(answers // 2)


@pytest.mark.parametrize(("start", "rounds"), [(2, 14), (4, 9), (16, 5)])
def test_it_is_there_after_few_rounds(start: int, rounds: int) -> None:
    """All of 64 slots are in use after so many times the length of an answer, and stay so."""
    endpoint = Simulated(64)
    climbed(endpoint, 3000, start)
    settled = next(n for n in range(3000) if min(endpoint.limits[n:]) >= 60)
    assert endpoint.times[settled] <= rounds * 0.5


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_it_does_not_wander_off(slots: int) -> None:
    """Over a long run with answers of very different length the limit stays at the scale of the slots."""
    endpoint = Simulated(slots, noise=0.8)
    climbed(endpoint, 300 * slots + 10_000)
    late = endpoint.limits[len(endpoint.limits) // 2 :]
    assert slots / 2 <= sorted(late)[len(late) // 2] <= 4 * slots + 4


def test_a_start_that_is_too_high_comes_down() -> None:
    """One slot needs no sixteen requests in its queue."""
    endpoint = Simulated(1)
    assert climbed(endpoint, 400, start=16).limit <= 4


def test_an_endpoint_that_refuses_is_kept_below_its_limit() -> None:
    """Where more than eight are refused, the limit ends at eight or below, and refusals are rare."""
    endpoint = Simulated(64, refuses_above=8)
    climbed(endpoint, 5000)
    assert endpoint.refusals <= 50
    assert sorted(endpoint.limits)[len(endpoint.limits) // 2] in (6, 7, 8)


def test_more_room_is_found() -> None:
    """Slots that come up in the middle of a run, as of a second GPU, are used."""
    endpoint = Simulated(4, noise=0.3)
    climber = climbed(endpoint, 1000)
    endpoint.slots = 32
    endpoint.work(8000, lambda: climber.limit, climber)
    assert climber.limit >= 24


def test_it_halves_when_it_is_too_much_and_grows_back() -> None:
    """A refusal halves the limit, and without another it is back near its best."""
    endpoint = Simulated(32)
    climber = climbed(endpoint, 3000)
    before = climber.limit
    climber.overloaded()
    assert climber.limit == before // 2
    endpoint.work(3000, lambda: climber.limit, climber)
    assert climber.limit >= 24


def test_it_does_not_grow_where_nobody_waits() -> None:
    """When the client is the slower one, the rate says nothing about the endpoint."""
    climber = AdaptiveLimit(4, 256)
    for n in range(1000):
        climber.answered(n * 0.1, waiting=False)
    assert climber.limit == 4


def test_the_limit_stays_in_its_bounds() -> None:
    """Never below one, never above the most."""
    climber = AdaptiveLimit(2, 8)
    for _ in range(5):
        climber.overloaded()
    assert climber.limit == 1
    endpoint = Simulated(64)
    assert climbed(endpoint, 2000, most=8).limit <= 8
    assert max(endpoint.limits) <= 8
