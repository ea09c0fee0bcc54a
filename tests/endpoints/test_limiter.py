"""Slots: never more than there are, none lost, whatever is cancelled."""

import asyncio
import random
from contextlib import AsyncExitStack, suppress

import pytest

from vlmbatch.endpoints.limiter import Limiter, RateLimiter


class Flight:
    """Counts who is in flight."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def take(self, limiter: Limiter, *, alone: bool = False, steps: int = 3) -> None:
        async with limiter.slot(alone=alone):
            self.now += 1
            self.most = max(self.most, self.now)
            assert not (alone and self.now > 1), "somebody else is there"
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
                    assert not (alone and self.now > 1), "somebody else came"
            finally:
                self.now -= 1


async def test_no_more_than_the_limit_are_in_flight() -> None:
    """A hundred tasks and seven slots: seven at once, all served."""
    flight, limiter = Flight(), Limiter(7)
    await asyncio.gather(*(flight.take(limiter) for _ in range(100)))
    assert flight.most == 7


@pytest.mark.parametrize("seed", range(20))
async def test_cancellation_loses_no_slot(seed: int) -> None:
    """Tasks that are cancelled anywhere, alone or not, leave all slots behind and nobody waits for ever."""
    dice, flight, limiter = random.Random(seed), Flight(), Limiter(3)
    tasks = [
        asyncio.create_task(flight.take(limiter, alone=dice.random() < 0.2, steps=dice.randrange(5)))
        for _ in range(60)
    ]
    for _ in range(40):
        await asyncio.sleep(0)
        dice.choice(tasks).cancel()
    done, pending = await asyncio.wait(tasks, timeout=30)
    assert not pending
    for task in done:
        with suppress(asyncio.CancelledError):
            task.result()
    flight.most = 0
    await asyncio.gather(*(flight.take(limiter) for _ in range(9)))
    assert flight.most == 3


async def test_alone_is_alone() -> None:
    """While one that must be alone waits or works, nobody else starts; afterwards all do."""
    flight, limiter = Flight(), Limiter(5)
    mixed = [flight.take(limiter, alone=n % 4 == 0) for n in range(40)]
    await asyncio.gather(*mixed)
    assert flight.most == 5


async def overload(limiter: Limiter, requests: int) -> None:
    """So many requests at once, each of which is refused."""

    async def refused() -> None:
        async with limiter.slot():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            limiter.overloaded()

    await asyncio.gather(*(refused() for _ in range(requests)))


async def test_a_burst_of_refusals_halves_once() -> None:
    """Requests that were in flight together tell of one overload, not of sixteen."""
    told: list[int] = []
    limiter = Limiter(16, most=64, changed=lambda: told.append(limiter.limit))
    await overload(limiter, 16)
    assert (limiter.limit, told) == (8, [8])
    await overload(limiter, 8)
    assert (limiter.limit, told) == (4, [8, 4])


async def test_a_limit_that_shrank_holds() -> None:
    """After halving no more than the new limit get in, and after growing the freed places are used."""
    flight, limiter = Flight(), Limiter(16, most=64)
    await overload(limiter, 16)
    await asyncio.gather(*(flight.take(limiter) for _ in range(50)))
    assert flight.most == 8


async def test_a_limit_that_grows_lets_those_who_wait_in() -> None:
    """Slots grow with the limit while tasks wait for them."""
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
    """--concurrency N is kept whatever the endpoint says."""
    told: list[int] = []
    limiter = Limiter(4, changed=lambda: told.append(limiter.limit))
    await overload(limiter, 4)
    for _ in range(500):
        limiter.answered()
    assert (limiter.limit, told) == (4, [])


async def test_rpm_spaces_attempts_evenly() -> None:
    """120 a minute are one every half second, from the first; time that passed is no credit for a burst."""
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


async def test_rpm_makes_no_burst_after_a_stall() -> None:
    """Who waits for a slot has no turn yet: slots that come free together are used one after the other."""
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
    now = 100.0  # both that ask have hung for that long
    free.set()
    await asyncio.gather(*tasks)
    assert starts == [0.0, 1.0, 0.0, 1.0]


async def test_rpm_makes_nobody_climb() -> None:
    """Where turns are what is waited for, more slots would bring nothing, and their number stays."""
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


async def test_what_queues_at_the_endpoint_is_asked_less() -> None:
    """An endpoint where many of our requests only wait gets fewer, never below half at once."""
    limiter = Limiter(16, most=64)
    async with AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(limiter.slot())
        limiter.queueing(2)
        assert limiter.limit == 16
        limiter.queueing(6)
        assert limiter.limit == 12
        limiter.queueing(12)  # of the requests that are in flight since before
        assert limiter.limit == 12


async def test_a_queue_of_others_is_no_reason() -> None:
    """Requests of other clients wait there; ours, of which there are few, do not have to go."""
    limiter = Limiter(16, most=64)
    async with limiter.slot():
        limiter.queueing(50)
    assert limiter.limit == 16
