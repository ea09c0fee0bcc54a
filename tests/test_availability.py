import asyncio
from collections.abc import Callable

import pytest

from vlmbatch.availability import Availability, until_available
from vlmbatch.errors import FatalBackendError, RejectedError, TransientError, UnavailableError
from vlmbatch.events import EndpointPaused, EndpointResumed, Event


class Time:
    """A clock that only sleeping moves, and what it was asked to sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Door:
    """An endpoint that opens at a moment; before it, it is away."""

    def __init__(
        self, time: Time, opens_at: float, error: Callable[[], Exception] = lambda: UnavailableError("away")
    ) -> None:
        self.time = time
        self.opens_at = opens_at
        self.error = error
        self.asked = 0

    async def ask(self) -> str:
        self.asked += 1
        if self.time.now < self.opens_at:
            raise self.error()
        return "open"


async def test_what_is_there_is_asked_once() -> None:
    """An endpoint that is there costs one question and no wait."""
    time = Time()
    door = Door(time, 0)
    assert await until_available(door.ask, patience_s=5, sleep=time.sleep, clock=time) == "open"
    assert (door.asked, time.slept) == (1, [])


async def test_patience_is_used_up_to_the_end_and_not_longer() -> None:
    """Waiting ends exactly when patience does, with one last question."""
    time = Time()
    door = Door(time, 1e9)
    with pytest.raises(UnavailableError, match="away"):
        await until_available(door.ask, patience_s=5, sleep=time.sleep, clock=time)
    assert time.now == pytest.approx(5)
    assert time.slept == [1, 2, 2]


async def test_waits_grow_to_half_a_minute() -> None:
    """A long outage is probed more and more rarely, at least every 30 seconds."""
    time = Time()
    await until_available(Door(time, 100).ask, patience_s=900, sleep=time.sleep, clock=time)
    assert time.slept == [1, 2, 4, 8, 16, 30, 30, 30]


async def test_a_passing_failure_at_the_door_is_an_outage() -> None:
    """A 500 to the preflight is waited out like a closed port, and ends as unavailable."""
    time = Time()
    door = Door(time, 3, lambda: TransientError("500"))
    assert await until_available(door.ask, patience_s=9, sleep=time.sleep, clock=time) == "open"
    with pytest.raises(UnavailableError, match="500"):
        await until_available(
            Door(time, 1e9, lambda: TransientError("500")).ask, patience_s=1, sleep=time.sleep, clock=time
        )


async def test_an_answer_of_another_kind_at_the_door_is_a_wrong_address() -> None:
    """A server that refuses the first question is not the one that was meant: exit 2, and no waiting."""
    time = Time()
    door = Door(time, 9, lambda: RejectedError("HTTP 422"))
    with pytest.raises(FatalBackendError, match=r"422.*--base-url"):
        await until_available(door.ask, patience_s=99, sleep=time.sleep, clock=time)
    assert time.slept == []


async def test_a_try_that_hangs_is_cut_off() -> None:
    """A probe that never returns counts as away, and the next one is made."""
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.Event().wait()
        return "open"

    assert await until_available(ask, patience_s=9, try_s=0.01, sleep=Time().sleep) == "open"


async def test_a_wrong_model_is_not_waited_for() -> None:
    """What waiting cannot mend ends at once."""
    time = Time()
    with pytest.raises(FatalBackendError):
        await until_available(
            Door(time, 9, lambda: FatalBackendError("no model")).ask,
            patience_s=99,
            sleep=time.sleep,
            clock=time,
        )
    assert time.slept == []


def availability(time: Time, door: Door, told: list[Event], patience_s: float = 900) -> Availability:
    async def probe() -> None:
        await door.ask()

    return Availability(probe, patience_s=patience_s, notify=told.append, sleep=time.sleep, clock=time)


async def test_an_outage_pauses_everybody_and_one_probes() -> None:
    """Twenty images that meet the outage cost one row of probes, and all go on after it."""
    time, told = Time(), list[Event]()
    door = Door(time, 10)
    breaker = availability(time, door, told)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(breaker.outage(UnavailableError("refused")))
    assert door.asked == len(time.slept) == 4
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]
    await asyncio.wait_for(breaker.ready(), 1)


async def test_nobody_asks_while_it_is_away() -> None:
    """ready() does not return before the endpoint is back."""
    time = Time()
    door = Door(time, 10)
    breaker = availability(time, door, [])
    outage = asyncio.create_task(breaker.outage(UnavailableError("refused")))
    await asyncio.sleep(0)
    await breaker.ready()
    assert time.now >= 10
    await outage


async def test_an_endpoint_that_stays_away_ends_the_run() -> None:
    """When patience has run out, the outage raises for all who wait."""
    time = Time()
    breaker = availability(time, Door(time, 1e9), [], patience_s=20)
    with pytest.raises(UnavailableError):
        await breaker.outage(UnavailableError("refused"))
    assert time.now == pytest.approx(20)


async def test_a_server_that_only_takes_probes_runs_out_of_patience() -> None:
    """Probes that succeed do not reset the patience; only an answer does."""
    time = Time()
    breaker = availability(time, Door(time, 0), [], patience_s=60)
    outages = 0

    async def keep_asking() -> None:
        nonlocal outages
        while outages < 100:
            outages += 1
            await breaker.outage(UnavailableError("busy"))

    with pytest.raises(UnavailableError, match="busy"):
        await keep_asking()
    assert 60 <= time.now <= 90


async def test_an_answer_resets_the_patience() -> None:
    """Outages with answers between them never end the run."""
    time = Time()
    breaker = availability(time, Door(time, 0), [], patience_s=10)
    for _ in range(50):
        await breaker.outage(UnavailableError("busy"))
        breaker.answered()
    assert time.now >= 50


async def test_retry_after_holds_the_pool_back() -> None:
    """The first probe waits for as long as the endpoint asked."""
    time = Time()
    await availability(time, Door(time, 0), []).outage(UnavailableError("busy", retry_after=17))
    assert time.slept == [17]


async def test_a_cancelled_prober_leaves_the_door_open() -> None:
    """Stopping the task that probes does not leave the others waiting for ever."""
    time = Time()
    breaker = availability(time, Door(time, 1e9), [])
    task = asyncio.create_task(breaker.outage(UnavailableError("refused")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.wait_for(breaker.ready(), 1)
