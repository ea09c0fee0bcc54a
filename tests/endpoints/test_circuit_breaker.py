"""The circuit breaker and the wait for an endpoint: outages, patience and proofs."""

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
    """A clock that only `sleep` moves; `slept` lists the sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Server:
    """An endpoint that is down until a given time."""

    def __init__(
        self, time: Time, up_at: float, error: Callable[[], Exception] = lambda: UnavailableError("away")
    ) -> None:
        self.time = time
        self.up_at = up_at
        self.error = error
        self.asked = 0

    async def ask(self) -> str:
        self.asked += 1
        if self.time.now < self.up_at:
            raise self.error()
        return "open"


async def test_an_endpoint_that_is_up_is_queried_once() -> None:
    """An endpoint that is up costs one request and no wait."""
    time = Time()
    server = Server(time, 0)
    assert await until_available(server.ask, patience_s=5, sleep=time.sleep, clock=time) == "open"
    assert (server.asked, time.slept) == (1, [])


async def test_the_wait_ends_exactly_with_the_patience() -> None:
    """The wait for an endpoint ends exactly with the patience, after one last try."""
    time = Time()
    server = Server(time, 1e9)
    with pytest.raises(UnavailableError, match="away"):
        await until_available(server.ask, patience_s=5, sleep=time.sleep, clock=time)
    assert time.now == pytest.approx(5)
    assert time.slept == [1, 2, 2]


async def test_waits_grow_to_half_a_minute() -> None:
    """The waits between the tries double up to 30 seconds."""
    time = Time()
    await until_available(Server(time, 100).ask, patience_s=900, sleep=time.sleep, clock=time)
    assert time.slept == [1, 2, 4, 8, 16, 30, 30, 30]


async def test_a_transient_failure_at_the_start_is_an_outage() -> None:
    """A 500 to the preflight is retried like a closed port, and ends as UnavailableError."""
    time = Time()
    server = Server(time, 3, lambda: TransientError("500"))
    assert await until_available(server.ask, patience_s=9, sleep=time.sleep, clock=time) == "open"
    with pytest.raises(UnavailableError, match="500"):
        await until_available(
            Server(time, 1e9, lambda: TransientError("500")).ask, patience_s=1, sleep=time.sleep, clock=time
        )


async def test_a_refusal_at_the_start_is_a_wrong_address() -> None:
    """A server that refuses the first request is fatal at once, and the error names --base-url."""
    time = Time()
    server = Server(time, 9, lambda: RejectedError("HTTP 422"))
    with pytest.raises(FatalBackendError, match=r"422.*--base-url"):
        await until_available(server.ask, patience_s=99, sleep=time.sleep, clock=time)
    assert time.slept == []


async def test_a_try_that_hangs_is_abandoned() -> None:
    """A try that never returns counts as an outage, and another try follows."""
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.Event().wait()
        return "open"

    assert await until_available(ask, patience_s=9, try_s=0.01, sleep=Time().sleep) == "open"


async def test_a_slow_try_has_the_patience_that_is_left() -> None:
    """A try is cut off when the patience ends, and not before."""

    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "open"

    async def hang() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    time = Time()
    time.now = 1000.0
    assert (
        await until_available(slow, patience_s=60, least_try_s=0.001, sleep=time.sleep, clock=time) == "open"
    )
    with pytest.raises(UnavailableError, match="did not answer in time"):
        await asyncio.wait_for(
            until_available(
                hang, patience_s=0.01, try_s=3600, least_try_s=0.001, sleep=time.sleep, clock=time
            ),
            240,
        )


async def test_a_fatal_error_is_not_retried() -> None:
    """A fatal error ends the wait at once."""
    time = Time()
    with pytest.raises(FatalBackendError):
        await until_available(
            Server(time, 9, lambda: FatalBackendError("no model")).ask,
            patience_s=99,
            sleep=time.sleep,
            clock=time,
        )
    assert time.slept == []


async def test_a_loading_endpoint_gets_more_patience_than_a_closed_port() -> None:
    """The wait for a server that loads its model is longer than for a closed port."""
    time = Time()
    loading = Server(time, 100, lambda: UnavailableError("Loading model"))
    found = await until_available(
        loading.ask, patience_s=5, loading_patience_s=900, sleep=time.sleep, clock=time
    )
    assert found == "open"
    began = time.now
    with pytest.raises(UnreachableError):
        await until_available(
            Server(time, 1e9, lambda: UnreachableError("refused")).ask,
            patience_s=5,
            loading_patience_s=900,
            sleep=time.sleep,
            clock=time,
        )
    assert time.now - began == pytest.approx(5)


async def test_a_slow_endpoint_is_not_cut_off_by_a_short_patience() -> None:
    """A try may take `least_try_s` even if the patience is shorter, and counts as an outage after that."""

    async def ask() -> str:
        await asyncio.sleep(0.02)
        return "open"

    assert await until_available(ask, patience_s=0, least_try_s=20) == "open"
    with pytest.raises(UnavailableError, match="did not answer"):
        await until_available(ask, patience_s=0, least_try_s=0.001)


def busy(retry_after: float | None = None) -> UnavailableError:
    return UnavailableError("busy", kind="busy", retry_after=retry_after)


async def nothing() -> None:
    """A proof without a request."""


def breaker_of(
    time: Time,
    server: Server,
    told: list[Event],
    patience_s: float = 900,
    prove: Callable[[], Awaitable[None]] = nothing,
) -> CircuitBreaker:
    class Breaker(CircuitBreaker):
        async def prove(self) -> None:
            await prove()

        async def probe(self) -> None:
            await server.ask()

    return Breaker(
        patience_s=patience_s,
        try_s=30,
        notify=told.append,
        sleep=time.sleep,
        clock=time,
        jitter=lambda: 0.0,
    )


async def test_an_outage_pauses_all_images_and_one_probes() -> None:
    """An outage that twenty images run into costs one series of probes, and all images go on after it."""
    time, told = Time(), list[Event]()
    server = Server(time, 10)
    breaker = breaker_of(time, server, told)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(breaker.unavailable(UnavailableError("refused"), 1))
    assert server.asked == len(time.slept) == 4
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]
    assert (breaker.up, breaker.downs) == (True, 1)
    await asyncio.wait_for(breaker.ready(), 240)


async def test_no_request_is_sent_during_an_outage() -> None:
    """ready() does not return before the endpoint is up again."""
    time = Time()
    server = Server(time, 10)
    breaker = breaker_of(time, server, [])
    await breaker.ready()
    outage = asyncio.create_task(breaker.unavailable(UnavailableError("refused"), 1))
    await asyncio.sleep(0)
    assert not breaker.up
    await breaker.ready()
    assert time.now >= 10
    await outage


async def test_an_endpoint_that_stays_down_ends_the_run() -> None:
    """After the patience, the outage raises UnavailableError for waiting images and for later ones."""
    time = Time()
    breaker = breaker_of(time, Server(time, 1e9), [], patience_s=20)
    with pytest.raises(UnavailableError):
        await breaker.unavailable(UnavailableError("refused"), 1)
    assert time.now == pytest.approx(20)
    with pytest.raises(UnavailableError):
        await breaker.ready()


async def test_successful_probes_do_not_reset_the_patience() -> None:
    """A server that answers only probes, and no image, uses up the patience."""
    time = Time()
    breaker = breaker_of(time, Server(time, 0), [], patience_s=60)

    async def keep_asking() -> None:
        for _ in range(100):
            await breaker.unavailable(UnavailableError("loading"), 1)

    with pytest.raises(UnavailableError, match="loading"):
        await keep_asking()
    assert 60 <= time.now <= 90


async def test_an_answer_resets_the_patience() -> None:
    """An answer between two outages resets the patience, so that they never end the run."""
    time = Time()
    breaker = breaker_of(time, Server(time, 0), [], patience_s=10)
    for _ in range(50):
        await breaker.unavailable(UnavailableError("loading"), 1)
        breaker.answered()
    assert time.now >= 50


@pytest.mark.parametrize("seconds", [17, 600])
async def test_retry_after_delays_the_first_probe(seconds: float) -> None:
    """The first probe comes after the Retry-After of the endpoint, even if it is long."""
    time, told = Time(), list[Event]()
    await breaker_of(time, Server(time, 0), told).unavailable(busy(retry_after=seconds), 1)
    assert time.slept == [seconds]
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]


async def test_retry_after_is_capped_by_the_patience() -> None:
    """If Retry-After is longer than the patience, the run ends after the patience."""
    time = Time()
    with pytest.raises(UnavailableError):
        await breaker_of(time, Server(time, 1e9), [], patience_s=60).unavailable(busy(900), 1)
    assert time.slept == [60]


async def test_one_busy_reply_delays_only_its_image() -> None:
    """A single "busy" delays only its own image, longer each time; no pause follows and no probe."""
    time, told = Time(), list[Event]()
    server = Server(time, 0)
    breaker = breaker_of(time, server, told)
    for waits in (1, 2, 3, 9):
        await breaker.unavailable(busy(), waits)
        breaker.answered()
    assert time.slept == [1, 2, 4, 30]
    assert (told, server.asked, breaker.up) == ([], 0, True)


async def test_five_busy_replies_in_a_row_pause_the_run() -> None:
    """The fifth "busy" without an answer between them pauses all images until a probe succeeds."""
    time, told = Time(), list[Event]()
    server = Server(time, 0)
    breaker = breaker_of(time, server, told)
    for _ in range(4):
        await breaker.unavailable(busy(), 1)
    assert told == []
    await breaker.unavailable(busy(), 1)
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]
    assert (server.asked, breaker.downs) == (1, 0)


async def test_five_transient_failures_of_several_images_pause_the_run() -> None:
    """Five failures in a row at different images pause the run like an outage."""
    time, told = Time(), list[Event]()
    breaker = breaker_of(time, Server(time, 0), told)
    for n in range(5):
        assert told == []
        await breaker.failed(TransientError("HTTP 500"), f"{n}.jpg")
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]
    assert isinstance(told[0], EndpointPaused)
    assert "5 requests in a row failed" in told[0].message


async def test_only_a_pause_with_a_failed_probe_counts_as_down() -> None:
    """A pause after lost connections counts in `downs` only if a probe finds the endpoint down."""
    for up_at, downs in ((10, 1), (0, 0)):
        time = Time()
        breaker = breaker_of(time, Server(time, up_at), [])
        for n in range(5):
            await breaker.failed(TransientError("reset", kind="connection"), f"{n}.jpg")
        assert breaker.downs == downs


async def test_repeated_failures_of_one_image_pause_nothing() -> None:
    """Repeated failures of a single image do not pause the run."""
    told: list[Event] = []
    breaker = breaker_of(Time(), Server(Time(), 0), told)
    for _ in range(20):
        await breaker.failed(TransientError("HTTP 500"), "a.jpg")
    assert told == []


async def test_failures_between_good_probes_do_not_use_up_patience() -> None:
    """If the endpoint has answered an image and answers probes, failing images never end the run."""
    time = Time()
    breaker = breaker_of(time, Server(time, 0), [], patience_s=10)
    breaker.answered()
    for n in range(500):
        await breaker.failed(TransientError("HTTP 500"), f"{n}.jpg")
    assert time.now > 100


async def test_an_endpoint_that_never_answered_an_image_is_given_up() -> None:
    """An endpoint that answers probes but fails at every image from the first uses up the patience."""
    time = Time()
    breaker = breaker_of(time, Server(time, 0), [], patience_s=10)

    async def fail_on() -> None:
        for n in range(500):
            await breaker.failed(TransientError("HTTP 500"), f"{n}.jpg")

    with pytest.raises(UnavailableError, match="HTTP 500"):
        await fail_on()


async def test_the_endpoint_is_proven_once_before_the_first_image() -> None:
    """Twenty waiting images cause one proof, and go on after its success."""
    proofs = 0

    async def prove() -> None:
        nonlocal proofs
        proofs += 1
        await asyncio.sleep(0.01)

    breaker = breaker_of(Time(), Server(Time(), 0), [], prove=prove)
    await asyncio.gather(*(breaker.ready() for _ in range(20)))
    assert proofs == 1


async def test_a_proof_that_fails_ends_the_run_for_all() -> None:
    """A fatal proof runs once, and its error is raised for every waiting image."""
    proofs = 0

    async def prove() -> None:
        nonlocal proofs
        proofs += 1
        raise FatalBackendError("blind")

    breaker = breaker_of(Time(), Server(Time(), 0), [], prove=prove)
    errors = await asyncio.gather(*(breaker.ready() for _ in range(5)), return_exceptions=True)
    assert [str(e) for e in errors] == ["blind"] * 5
    assert proofs == 1


async def test_a_cold_endpoint_pauses_the_run() -> None:
    """While the proof finds the endpoint loading, the run pauses as in any outage, and goes on afterwards."""
    time, told = Time(), list[Event]()
    cold = Server(time, 20)

    async def prove() -> None:
        await cold.ask()

    await breaker_of(time, Server(time, 0), told, prove=prove).ready()
    assert time.now >= 20
    assert [type(e) for e in told] == [EndpointPaused, EndpointResumed]


async def test_a_cancelled_probe_blocks_no_image() -> None:
    """If the task that probes is cancelled, other images do not wait for ever."""
    time = Time()
    breaker = breaker_of(time, Server(time, 1e9), [])
    task = asyncio.create_task(breaker.unavailable(UnavailableError("refused"), 1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.wait_for(breaker.ready(), 240)
