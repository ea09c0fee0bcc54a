import asyncio
from collections.abc import Awaitable, Callable

import pytest

from vlmbatch.endpoints.circuit_breaker import CircuitBreaker, until_available
from vlmbatch.errors import (
    FatalBackendError,
    RejectedError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
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


async def test_somebody_who_is_loading_gets_more_patience_than_nobody() -> None:
    """A server that says that it loads is waited for longer than a closed port."""
    time = Time()
    loading = Door(time, 100, lambda: UnavailableError("Loading model"))
    found = await until_available(
        loading.ask, patience_s=5, loading_patience_s=900, sleep=time.sleep, clock=time
    )
    assert found == "open"
    began = time.now
    with pytest.raises(UnreachableError):
        await until_available(
            Door(time, 1e9, lambda: UnreachableError("refused")).ask,
            patience_s=5,
            loading_patience_s=900,
            sleep=time.sleep,
            clock=time,
        )
    assert time.now - began == pytest.approx(5)


async def test_a_slow_endpoint_is_not_cut_off_by_a_short_patience() -> None:
    """Patience is about an endpoint that is away: one that works on the question gets `least_try_s`."""

    async def ask() -> str:
        await asyncio.sleep(0.02)
        return "open"

    assert await until_available(ask, patience_s=0, least_try_s=20) == "open"
    with pytest.raises(UnavailableError, match="did not answer"):
        await until_available(ask, patience_s=0, least_try_s=0.001)


def busy(retry_after: float | None = None) -> UnavailableError:
    return UnavailableError("busy", kind="busy", retry_after=retry_after)


async def nothing() -> None:
    """A proof that needs no asking."""


def availability(
    time: Time,
    door: Door,
    told: list[Event],
    patience_s: float = 900,
    prove: Callable[[], Awaitable[None]] = nothing,
) -> CircuitBreaker:
    class Breaker(CircuitBreaker):
        async def prove(self) -> None:
            await prove()

        async def probe(self) -> None:
            await door.ask()

    return Breaker(
        patience_s=patience_s,
        try_s=30,
        notify=told.append,
        sleep=time.sleep,
        clock=time,
        jitter=lambda: 0.0,
    )


async def test_an_outage_pauses_everybody_and_one_probes() -> None:
    """Twenty images that meet the outage cost one row of probes, and all go on after it."""
    time, told = Time(), list[Event]()
    door = Door(time, 10)
    breaker = availability(time, door, told)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(breaker.unavailable(UnavailableError("refused"), 1))
    assert door.asked == len(time.slept) == 4
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]
    assert (breaker.up, breaker.downs) == (True, 1)
    await asyncio.wait_for(breaker.ready(), 1)


async def test_nobody_asks_while_it_is_away() -> None:
    """ready() does not return before the endpoint is back."""
    time = Time()
    door = Door(time, 10)
    breaker = availability(time, door, [])
    await breaker.ready()
    outage = asyncio.create_task(breaker.unavailable(UnavailableError("refused"), 1))
    await asyncio.sleep(0)
    assert not breaker.up
    await breaker.ready()
    assert time.now >= 10
    await outage


async def test_an_endpoint_that_stays_away_ends_the_run() -> None:
    """When patience has run out, the outage raises for all who wait, and for all who come later."""
    time = Time()
    breaker = availability(time, Door(time, 1e9), [], patience_s=20)
    with pytest.raises(UnavailableError):
        await breaker.unavailable(UnavailableError("refused"), 1)
    assert time.now == pytest.approx(20)
    with pytest.raises(UnavailableError):
        await breaker.ready()


async def test_a_server_that_only_takes_probes_runs_out_of_patience() -> None:
    """Probes that succeed do not reset the patience; only an answer does."""
    time = Time()
    breaker = availability(time, Door(time, 0), [], patience_s=60)

    async def keep_asking() -> None:
        for _ in range(100):
            await breaker.unavailable(UnavailableError("loading"), 1)

    with pytest.raises(UnavailableError, match="loading"):
        await keep_asking()
    assert 60 <= time.now <= 90


async def test_an_answer_resets_the_patience() -> None:
    """Outages with answers between them never end the run."""
    time = Time()
    breaker = availability(time, Door(time, 0), [], patience_s=10)
    for _ in range(50):
        await breaker.unavailable(UnavailableError("loading"), 1)
        breaker.answered()
    assert time.now >= 50


@pytest.mark.parametrize("seconds", [17, 600])
async def test_retry_after_holds_the_pool_back(seconds: float) -> None:
    """The first probe waits for as long as the endpoint asked, also where that is long."""
    time, told = Time(), list[Event]()
    await availability(time, Door(time, 0), told).unavailable(busy(retry_after=seconds), 1)
    assert time.slept == [seconds]
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]


async def test_retry_after_is_capped_by_the_patience() -> None:
    """An endpoint that asks for more time than --give-up-after gives is tried once more and given up."""
    time = Time()
    with pytest.raises(UnavailableError):
        await availability(time, Door(time, 1e9), [], patience_s=60).unavailable(busy(900), 1)
    assert time.slept == [60]


async def test_one_busy_reply_delays_only_its_image() -> None:
    """A lone "busy" costs its image a wait that grows; nobody else is held back and nothing is probed."""
    time, told = Time(), list[Event]()
    door = Door(time, 0)
    breaker = availability(time, door, told)
    for waits in (1, 2, 3, 9):
        await breaker.unavailable(busy(), waits)
        breaker.answered()
    assert time.slept == [1, 2, 4, 30]
    assert (told, door.asked, breaker.up) == ([], 0, True)


async def test_five_busy_replies_in_a_row_pause_the_run() -> None:
    """The fifth without an answer between them is an outage: all wait, and a probe ends it."""
    time, told = Time(), list[Event]()
    door = Door(time, 0)
    breaker = availability(time, door, told)
    for _ in range(4):
        await breaker.unavailable(busy(), 1)
    assert told == []
    await breaker.unavailable(busy(), 1)
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]
    assert (door.asked, breaker.downs) == (1, 0)


async def test_five_passing_failures_of_several_images_pause_the_run() -> None:
    """Timeouts or 500s in a row across images are a wedged engine, and are probed like an outage."""
    time, told = Time(), list[Event]()
    breaker = availability(time, Door(time, 0), told)
    for n in range(5):
        assert told == []
        await breaker.failed(TransientError("HTTP 500"), f"{n}.jpg")
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]
    assert isinstance(told[0], EndpointPaused)
    assert "5 requests in a row failed" in told[0].message


async def test_a_pause_in_which_nobody_was_there_is_a_down() -> None:
    """Lost connections in a row may be a crash: the probes tell whether somebody was there all the time."""
    for opens_at, downs in ((10, 1), (0, 0)):
        time = Time()
        breaker = availability(time, Door(time, opens_at), [])
        for n in range(5):
            await breaker.failed(TransientError("reset", kind="connection"), f"{n}.jpg")
        assert breaker.downs == downs


async def test_one_image_that_fails_again_and_again_pauses_nobody() -> None:
    """What fails over a single image says nothing about the endpoint."""
    told: list[Event] = []
    breaker = availability(Time(), Door(Time(), 0), told)
    for _ in range(20):
        await breaker.failed(TransientError("HTTP 500"), "a.jpg")
    assert told == []


async def test_failures_that_a_probe_refutes_do_not_use_up_patience() -> None:
    """An engine that has answered and answers probes is there: images that fail never end the run."""
    time = Time()
    breaker = availability(time, Door(time, 0), [], patience_s=10)
    breaker.answered()
    for n in range(500):
        await breaker.failed(TransientError("HTTP 500"), f"{n}.jpg")
    assert time.now > 100


async def test_an_endpoint_that_never_answered_an_image_is_given_up() -> None:
    """One that answers probes alone, and fails over every image from the first, runs out of patience."""
    time = Time()
    breaker = availability(time, Door(time, 0), [], patience_s=10)

    async def fail_on() -> None:
        for n in range(500):
            await breaker.failed(TransientError("HTTP 500"), f"{n}.jpg")

    with pytest.raises(UnavailableError, match="HTTP 500"):
        await fail_on()


async def test_the_endpoint_is_proven_once_before_the_first_image() -> None:
    """However many images wait, one proof is made, and they go on when it has succeeded."""
    proofs = 0

    async def prove() -> None:
        nonlocal proofs
        proofs += 1
        await asyncio.sleep(0.01)

    breaker = availability(Time(), Door(Time(), 0), [], prove=prove)
    await asyncio.gather(*(breaker.ready() for _ in range(20)))
    assert proofs == 1


async def test_a_proof_that_fails_ends_the_run_for_all() -> None:
    """A model that cannot see is found out once, and everybody who waits hears it."""
    proofs = 0

    async def prove() -> None:
        nonlocal proofs
        proofs += 1
        raise FatalBackendError("blind")

    breaker = availability(Time(), Door(Time(), 0), [], prove=prove)
    errors = await asyncio.gather(*(breaker.ready() for _ in range(5)), return_exceptions=True)
    assert [str(e) for e in errors] == ["blind"] * 5
    assert proofs == 1


async def test_a_cold_endpoint_is_waited_for_and_told_of() -> None:
    """While the proof finds it loading, the run is paused like in any outage, and goes on after it."""
    time, told = Time(), list[Event]()
    cold = Door(time, 20)

    async def prove() -> None:
        await cold.ask()

    await availability(time, Door(time, 0), told, prove=prove).ready()
    assert time.now >= 20
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]


async def test_a_cancelled_prober_leaves_the_door_open() -> None:
    """Stopping the task that probes does not leave the others waiting for ever."""
    time = Time()
    breaker = availability(time, Door(time, 1e9), [])
    task = asyncio.create_task(breaker.unavailable(UnavailableError("refused"), 1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.wait_for(breaker.ready(), 1)
