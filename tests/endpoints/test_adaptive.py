"""The limit that --concurrency auto finds, at simulated endpoints with a computed time."""

import heapq
import random
from collections.abc import Callable

import pytest

from vlmbatch.endpoints.adaptive import AdaptiveLimit


class Simulated:
    """An endpoint with slots: half a second an answer, plus or minus `noise` of it; more requests queue."""

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

    def work(self, answers: int, limit: Callable[[], int], adaptive: AdaptiveLimit | None = None) -> None:
        """Produce N answers, with as many requests in flight as the limit allows."""
        for _ in range(answers):
            while len(self._running) + self._queued < limit():
                if self.refuses_above and len(self._running) + self._queued >= self.refuses_above:
                    self.refusals += 1
                    if adaptive:
                        adaptive.overloaded()
                    break
                self._queued += 1
                self._start()
            self._now = heapq.heappop(self._running)
            self._start()
            if adaptive:
                adaptive.answered(self._now, waiting=True)
            self.limits.append(limit())
            self.times.append(self._now)

    def rate(self, last: int) -> float:
        """Answers a second, over the last N answers."""
        return last / (self.times[-1] - self.times[-1 - last])

    def _start(self) -> None:
        while self._queued and len(self._running) < self.slots:
            self._queued -= 1
            latency = 0.5 * (1 + self.noise * self.random.uniform(-1, 1))
            heapq.heappush(self._running, self._now + latency)


def adapted(
    endpoint: Simulated, answers: int, start: int = 4, most: int = 256, known_limit: int | None = None
) -> AdaptiveLimit:
    adaptive = AdaptiveLimit(start, most, known_limit)
    endpoint.work(answers, lambda: adaptive.limit, adaptive)
    return adaptive


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("slots", [1, 2, 4, 8, 16, 48, 64, 100])
def test_the_limit_ends_near_the_best_fixed_one(slots: int, noise: float) -> None:
    """In its second half a run gets at least nine tenths of the rate of the best fixed limit."""
    answers = max(600, 80 * slots)
    best = Simulated(slots, noise=noise)
    best.work(answers, lambda: 2 * slots)
    found = Simulated(slots, noise=noise)
    adapted(found, answers)
    assert found.rate(answers // 2) >= 0.9 * best.rate(answers // 2)


@pytest.mark.parametrize(("start", "rounds"), [(2, 14), (4, 9), (16, 5)])
def test_the_limit_settles_after_few_rounds(start: int, rounds: int) -> None:
    """The limit reaches 60 of 64 slots within this many answer times, and stays there."""
    endpoint = Simulated(64)
    adapted(endpoint, 3000, start)
    settled = next(n for n in range(3000) if min(endpoint.limits[n:]) >= 60)
    assert endpoint.times[settled] <= rounds * 0.5


@pytest.mark.parametrize(("slots", "least"), [(4, 0.99), (8, 0.99), (16, 0.99), (64, 0.92), (128, 0.92)])
def test_a_known_limit_keeps_the_slots_busy_from_the_start(slots: int, least: float) -> None:
    """A run that knows the best limit gets nearly the rate of the best fixed one in its first ten rounds."""
    best, found = Simulated(slots, noise=0.3), Simulated(slots, noise=0.3)
    best.work(10 * slots, lambda: 2 * slots)
    adapted(found, 10 * slots, known_limit=slots)
    assert found.rate(10 * slots - 1) >= least * best.rate(10 * slots - 1)


@pytest.mark.parametrize(
    ("known_limit", "slots", "answers"), [(256, 64, 100), (64, 4, 400), (16, 4, 400), (16, 1, 500)]
)
def test_a_known_limit_that_is_too_high_comes_down(known_limit: int, slots: int, answers: int) -> None:
    """If the endpoint has fewer slots than in the earlier run, the limit falls within hundreds of answers."""
    endpoint = Simulated(slots)
    adapted(endpoint, answers, known_limit=known_limit)
    assert min(endpoint.limits) <= 2 * slots


@pytest.mark.parametrize("known_limit", [1, 2, 16])
def test_a_known_limit_that_is_too_low_grows(known_limit: int) -> None:
    """If the endpoint has more slots than in the earlier run, the limit reaches them within thirty rounds."""
    endpoint = Simulated(64)
    adapted(endpoint, 1500, known_limit=known_limit)
    reached = next(n for n in range(1500) if endpoint.limits[n] >= 60)
    assert endpoint.times[reached] <= 30 * 0.5


def test_a_large_known_limit_is_not_sent_at_once() -> None:
    """The first round uses half of a large known limit; the next rounds use all of it if the rate grows."""
    endpoint = Simulated(64)
    adapted(endpoint, 400, known_limit=64)
    assert endpoint.limits[:30] == [32] * 30
    assert 64 in endpoint.limits[:80]


def test_an_overload_at_once_halves_a_known_limit() -> None:
    """An endpoint that refuses more than eight requests gets few, also if an earlier run sent it 64."""
    endpoint = Simulated(64, refuses_above=8)
    adaptive = adapted(endpoint, 2000, known_limit=64)
    assert endpoint.refusals <= 50
    assert adaptive.best is not None
    assert adaptive.best <= 8


def test_the_best_limit_is_found_and_not_guessed() -> None:
    """The best limit is None until one is found, also for a known one, and never one that is on trial."""
    assert (AdaptiveLimit(4, 256).best, AdaptiveLimit(4, 256, 8).best) == (None, None)
    adaptive = AdaptiveLimit(4, 256)
    endpoint = Simulated(16)
    found = set()
    for _ in range(4000):
        endpoint.work(1, lambda: adaptive.limit, adaptive)
        found.add(adaptive.best)
    assert found == {None, 8, 16}  # of 4, 8, 16 and 32, the rate grew at two
    assert max(endpoint.limits) > 16


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_the_limit_stays_near_the_slots(slots: int) -> None:
    """In a long run with answers of very different length, the limit stays close to the number of slots."""
    endpoint = Simulated(slots, noise=0.8)
    adapted(endpoint, 300 * slots + 10_000)
    late = endpoint.limits[len(endpoint.limits) // 2 :]
    assert slots / 2 <= sorted(late)[len(late) // 2] <= 4 * slots + 4


def test_a_start_that_is_too_high_comes_down() -> None:
    """A limit that starts at 16 falls to 4 or less at an endpoint with one slot."""
    endpoint = Simulated(1)
    assert adapted(endpoint, 400, start=16).limit <= 4


def test_an_endpoint_that_refuses_is_kept_below_its_limit() -> None:
    """If the endpoint refuses more than eight requests, the limit ends at 6 to 8, and refusals are rare."""
    endpoint = Simulated(64, refuses_above=8)
    adapted(endpoint, 5000)
    assert endpoint.refusals <= 50
    assert sorted(endpoint.limits)[len(endpoint.limits) // 2] in (6, 7, 8)


def test_new_slots_are_used() -> None:
    """The limit grows if the endpoint gets more slots during a run, as from a second GPU."""
    endpoint = Simulated(4, noise=0.3)
    adaptive = adapted(endpoint, 1000)
    endpoint.slots = 32
    endpoint.work(8000, lambda: adaptive.limit, adaptive)
    assert adaptive.limit >= 24


def test_an_overload_halves_the_limit_and_it_grows_back() -> None:
    """A refusal halves the limit, and without another refusal it grows back."""
    endpoint = Simulated(32)
    adaptive = adapted(endpoint, 3000)
    before = adaptive.limit
    adaptive.overloaded()
    assert adaptive.limit == before // 2
    endpoint.work(3000, lambda: adaptive.limit, adaptive)
    assert adaptive.limit >= 24


def test_the_limit_does_not_grow_if_no_image_waits() -> None:
    """If no image waits for a slot, answers do not raise the limit: the client is the slower side."""
    adaptive = AdaptiveLimit(4, 256)
    for n in range(1000):
        adaptive.answered(n * 0.1, waiting=False)
    assert adaptive.limit == 4


def test_the_limit_stays_within_its_bounds() -> None:
    """The limit is never below one and never above its maximum."""
    adaptive = AdaptiveLimit(2, 8)
    for _ in range(5):
        adaptive.overloaded()
    assert adaptive.limit == 1
    endpoint = Simulated(64)
    assert adapted(endpoint, 2000, most=8).limit <= 8
    assert max(endpoint.limits) <= 8
