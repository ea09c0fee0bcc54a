"""The limiter: its limit holds, and no slot is lost in a cancellation."""

import asyncio
import random
from contextlib import AsyncExitStack, suppress

import pytest

from vlmbatch.endpoints.limiter import Limiter, RateLimiter


class Flight:
    """Counts the requests in flight."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def take(self, limiter: Limiter, *, alone: bool = False, steps: int = 3) -> None:
        async with limiter.slot(alone=alone):
            self.now += 1
            self.most = max(self.most, self.now)
            assert not (alone and self.now > 1), "another request is in flight"
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
                    assert not (alone and self.now > 1), "another request has started"
            finally:
                self.now -= 1


async def test_no_more_than_the_limit_are_in_flight() -> None:
    """With seven slots, a hundred tasks all get a slot, at most seven at once."""
    flight, limiter = Flight(), Limiter(7)
    await asyncio.gather(*(flight.take(limiter) for _ in range(100)))
    assert flight.most == 7


@pytest.mark.parametrize("seed", range(20))
async def test_cancellation_loses_no_slot(seed: int) -> None:
    """Tasks that are cancelled at any point, alone or not, return their slots, and no task waits for ever."""
    dice, flight, limiter = random.Random(seed), Flight(), Limiter(3)
    tasks = [
        asyncio.create_task(flight.take(limiter, alone=dice.random() < 0.2, steps=dice.randrange(5)))
        for _ in range(60)
    ]
    for _ in range(40):
        await asyncio.sleep(0)
        dice.choice(tasks).cancel()
    done, pending = await asyncio.wait(tasks, timeout=240)
    assert not pending
    for task in done:
        with suppress(asyncio.CancelledError):
            task.result()
    flight.most = 0
    await asyncio.gather(*(flight.take(limiter) for _ in range(9)))
    assert flight.most == 3


async def test_a_request_alone_excludes_all_others() -> None:
    """While a request holds a slot alone no other one is in flight; afterwards all slots are used again."""
    flight, limiter = Flight(), Limiter(5)
    mixed = [flight.take(limiter, alone=n % 4 == 0) for n in range(40)]
    await asyncio.gather(*mixed)
    assert flight.most == 5


async def test_a_slot_is_free_while_slot_would_return_at_once() -> None:
    """A limiter is free unless all its slots are taken, or a request has it or wants it for itself."""
    limiter = Limiter(2)
    assert limiter.free
    async with limiter.slot():
        assert limiter.free
        async with limiter.slot():
            assert not limiter.free
        alone = asyncio.create_task(Flight().take(limiter, alone=True))
        await asyncio.sleep(0)
        assert not limiter.free
    await alone
    assert limiter.free


async def overload(limiter: Limiter, requests: int, *, is_busy: bool = True) -> None:
    """N requests at once, and all of them are refused."""

    async def refused() -> None:
        async with limiter.slot():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            limiter.overloaded(is_busy=is_busy)

    await asyncio.gather(*(refused() for _ in range(requests)))


async def test_a_burst_of_refusals_halves_the_limit_once() -> None:
    """Refusals of requests that were in flight together halve the limit only once."""
    told: list[int] = []
    limiter = Limiter(16, most=64, changed=lambda: told.append(limiter.limit))
    await overload(limiter, 16)
    assert (limiter.limit, told) == (8, [8])
    await overload(limiter, 8)
    assert (limiter.limit, told) == (4, [8, 4])


async def test_a_lower_limit_holds() -> None:
    """After the limit is halved, no more requests than the new limit are in flight."""
    flight, limiter = Flight(), Limiter(16, most=64)
    await overload(limiter, 16)
    await asyncio.gather(*(flight.take(limiter) for _ in range(50)))
    assert flight.most == 8


async def test_a_higher_limit_admits_waiting_tasks() -> None:
    """If the limit grows while tasks wait, more of them are in flight."""
    now = 0.0
    limiter = Limiter(2, most=32, clock=lambda: now)
    inside = most = 0

    async def ask() -> None:
        nonlocal now, inside, most
        async with limiter.slot():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            now += 1 / limiter.limit  # an endpoint that answers twice as much with twice the limit
            limiter.answered()
            inside -= 1

    await asyncio.gather(*(ask() for _ in range(3000)))
    assert limiter.limit > 2
    assert 2 < most <= 32


async def test_a_fixed_limit_stays() -> None:
    """A fixed limit changes neither with timeouts and crashes nor with answers."""
    told: list[int] = []
    limiter = Limiter(4, changed=lambda: told.append(limiter.limit))
    await overload(limiter, 4, is_busy=False)
    limiter.queueing(9)
    for _ in range(500):
        limiter.answered()
    assert (limiter.limit, told) == (4, [])


async def test_a_fixed_limit_is_lower_while_the_endpoint_is_busy() -> None:
    """A fixed limit is halved if the endpoint says that it is busy, and comes back with the answers."""
    limiter = Limiter(64)
    for number in (64, 32, 16):
        await overload(limiter, number)
    assert (limiter.limit, limiter.most) == (8, 64)
    limits = [limiter.limit]
    for _ in range(3000):
        limiter.answered()
        limits.append(limiter.limit)
    assert limits == sorted(limits)
    assert limits[100] == 15, "it grows below the number that was too many"
    assert limits[-1] == 64


async def test_rpm_spaces_attempts_evenly() -> None:
    """120 a minute start one every half second; idle time gives no credit for a burst."""
    now, slept = 100.0, list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    limiter = Limiter(8, pace=RateLimiter(120, sleep=sleep, clock=lambda: now))
    for _ in range(3):
        async with limiter.slot():
            pass
    assert slept == [0.5, 1.0]
    now = 200.0
    for _ in range(2):
        async with limiter.slot():
            pass
    assert slept == [0.5, 1.0, 0.5]


async def test_a_request_that_must_be_alone_waits_for_its_turn() -> None:
    """The requests of a suspect keep to the rate, too."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    limiter = Limiter(8, pace=RateLimiter(120, sleep=sleep, clock=lambda: 100.0))
    for alone in (True, False, True):
        async with limiter.slot(alone=alone):
            pass
    assert slept == [0.5, 1.0]


async def test_rpm_allows_no_burst_after_a_stall() -> None:
    """Slots that become free at the same time start their requests one interval apart."""
    now, starts = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        starts[-1] += seconds

    async def ask() -> None:
        starts.append(0.0)
        async with limiter.slot():
            await free.wait()

    free = asyncio.Event()
    limiter = Limiter(2, pace=RateLimiter(60, sleep=sleep, clock=lambda: now))
    tasks = [asyncio.create_task(ask()) for _ in range(2)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(ask()) for _ in range(2)]
    await asyncio.sleep(0)
    now = 100.0  # both requests in flight have hung for this time
    free.set()
    await asyncio.gather(*tasks)
    assert starts == [0.0, 1.0, 0.0, 1.0]


async def test_rpm_does_not_raise_the_limit() -> None:
    """If tasks wait for the rate limit and not for slots, the number of slots does not grow."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        await asyncio.sleep(0)
        now += seconds

    async def ask() -> None:
        async with limiter.slot():
            await asyncio.sleep(0)
            limiter.answered()

    limiter = Limiter(2, most=64, pace=RateLimiter(60, sleep=sleep, clock=lambda: now), clock=lambda: now)
    await asyncio.gather(*(ask() for _ in range(300)))
    assert limiter.limit == 2


async def test_a_queue_at_the_endpoint_lowers_the_limit() -> None:
    """If many of our requests wait at the endpoint, the limit falls, once for the same requests."""
    limiter = Limiter(16, most=64)
    async with AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(limiter.slot())
        limiter.queueing(2)
        assert limiter.limit == 16
        limiter.queueing(6)
        assert limiter.limit == 12
        limiter.queueing(12)  # the same requests are still in flight
        assert limiter.limit == 12


async def test_a_queue_of_other_clients_changes_nothing() -> None:
    """A queue at the endpoint does not lower the limit if only few of our requests are in flight."""
    limiter = Limiter(16, most=64)
    async with limiter.slot():
        limiter.queueing(50)
    assert limiter.limit == 16


async def test_a_request_that_is_alone_is_in_flight() -> None:
    """The number of requests in flight counts one that is alone, too."""
    limiter = Limiter(4)
    async with limiter.slot(alone=True):
        assert limiter.in_flight == 1
    async with limiter.slot(), limiter.slot():
        assert limiter.in_flight == 2
    assert limiter.in_flight == 0
