"""The endpoint pool: which endpoint gives the next slot, which images wait, and none waits for ever."""

import asyncio
import gc
import random
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.circuit_breaker import CircuitBreaker
from vlmbatch.endpoints.crash_history import CrashHistory
from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.limiter import Limiter
from vlmbatch.endpoints.pool import EndpointPool
from vlmbatch.errors import FatalBackendError, RejectedError, UnavailableError
from vlmbatch.events import ConcurrencyChanged, Event, Notice
from vlmbatch.protocols import Backend
from vlmbatch.records import Endpoint

Ask = Callable[[], Awaitable[None]]


async def is_well() -> None:
    """A proof or probe of an endpoint that is up."""


async def until(holds: Callable[[], bool]) -> None:
    """Let other tasks run until this holds."""
    for _ in range(100_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never became true")


class Breaker(CircuitBreaker):
    """A circuit breaker whose endpoint is proven and probed by functions."""

    def __init__(self, prove: Ask, probe: Ask, **options: Any) -> None:
        super().__init__(**options)
        self._prove = prove
        self._probe = probe

    async def prove(self) -> None:
        await self._prove()

    async def probe(self) -> None:
        await self._probe()


class Fleet:
    """A pool of endpoints without backends; the tests report their failures to the pool."""

    def __init__(self, *, steps_in: bool = False, patience_s: float = 900.0, recovers: bool = False) -> None:
        self.told: list[Event] = []
        self.pool = EndpointPool(
            ahead=2,
            notify=self.told.append,
            bugs=Bugs(self.told.append),
            fallbacks_step_in=steps_in,
            recovers=recovers,
            sleep=self.sleep,
        )
        self.patience_s = patience_s
        self.now = 0.0

    def receive(self, event: Event) -> None:
        self.told.append(event)
        self.pool.changed()  # as EndpointBreaker does

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def add(
        self,
        name: str,
        *,
        limit: int = 1,
        rank: int = 0,
        prove: Ask = is_well,
        probe: Ask = is_well,
        most: int | None = None,
    ) -> PooledEndpoint:
        """Add an endpoint with this many slots to the pool."""
        nothing: Backend = None  # type: ignore[assignment]  # the pool sends no requests itself
        endpoint = PooledEndpoint(nothing, rank=rank, place=name)
        limiter = Limiter(
            limit,
            most=most,
            waiting=lambda: self.pool.waiting > 0,
            changed=self.pool.changed,
            clock=lambda: self.now,
        )
        endpoint.identify(Endpoint(backend="b", url=name, model="m"), limiter)
        endpoint.protect(
            Breaker(
                prove,
                probe,
                patience_s=self.patience_s,
                try_s=60,
                notify=self.receive,
                sleep=self.sleep,
                clock=lambda: self.now,
            )
        )
        self.pool.add(endpoint)
        return endpoint

    async def place(self, rank: int = 0, *, alone: bool = False, last: PooledEndpoint | None = None) -> str:
        """The name of the endpoint that gives a slot; the slot is held for a moment."""
        async with self.pool.slot(rank, history(alone), last) as endpoint:
            await asyncio.sleep(0)
            return endpoint.place


def history(suspect: bool = False) -> CrashHistory:
    """The crash history of an image, which must be alone if it is a suspect."""
    crashes = CrashHistory()
    crashes.suspect = suspect
    return crashes


async def test_all_free_slots_are_used() -> None:
    """At two endpoints with two slots and one, three requests get a slot and the fourth waits."""
    fleet = Fleet()
    fleet.add("a", limit=2), fleet.add("b")
    asked: list[str] = []
    free = asyncio.Event()

    async def hold() -> None:
        async with fleet.pool.slot(0, history()) as endpoint:
            asked.append(endpoint.place)
            await free.wait()

    async with fleet.pool:
        tasks = [asyncio.create_task(hold()) for _ in range(4)]
        await until(lambda: len(asked) == 3)
        for _ in range(20):
            await asyncio.sleep(0)
        assert sorted(asked) == ["a", "a", "b"]
        free.set()
        await asyncio.gather(*tasks)
    assert len(asked) == 4


async def test_an_image_is_retried_at_another_endpoint() -> None:
    """An image that failed at one endpoint gets a slot at another one if it is free."""
    fleet = Fleet()
    a, b = fleet.add("a"), fleet.add("b")
    async with fleet.pool:
        assert [await fleet.place(last=a), await fleet.place(last=b)] == ["b", "a"]


@pytest.mark.parametrize("seed", range(20))
async def test_no_request_waits_for_ever(seed: int) -> None:
    """Requests that are cancelled, refused or alone, in any order, all end and leave all slots free."""
    dice = random.Random(seed)
    fleet = Fleet()
    endpoints = [fleet.add("a", limit=3), fleet.add("b", limit=1), fleet.add("c", limit=2)]

    async def request() -> None:
        alone, refused = dice.random() < 0.2, dice.random() < 0.2

        class Dice(CrashHistory):
            def must_be_alone(self) -> bool:
                if refused and dice.random() < 0.5:
                    raise RejectedError("no")
                return alone

        async with fleet.pool.slot(0, Dice(), dice.choice([None, *endpoints])):
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)

    async with fleet.pool:
        tasks = [asyncio.create_task(request()) for _ in range(80)]
        for _ in range(40):
            await asyncio.sleep(0)
            dice.choice(tasks).cancel()
        _, pending = await asyncio.wait(tasks, timeout=240)
        assert not pending
        for task in tasks:
            with suppress(asyncio.CancelledError, RejectedError):
                task.result()
        assert all(endpoint.limiter.free and endpoint.limiter.share_in_use == 0 for endpoint in endpoints)


async def test_suspects_share_the_slowest_endpoint() -> None:
    """Images that must be alone all get the endpoint with the fewest answers, since they block it."""
    fleet = Fleet()
    fast, slow = fleet.add("fast", limit=2), fleet.add("slow", limit=4)
    async with fleet.pool:
        await asyncio.gather(fleet.place(last=slow), fleet.place(last=fast))
        for endpoint in (fast, fast, slow):
            fleet.pool.answered(endpoint)
        assert await asyncio.gather(*(fleet.place(alone=True) for _ in range(5))) == ["slow"] * 5


async def test_all_slots_are_used_after_a_request_that_was_alone() -> None:
    """When a request that was alone at its endpoint has ended, as many requests begin as there are slots."""
    fleet = Fleet()
    fleet.add("a", limit=3)
    begun = 0
    free = asyncio.Event()

    async def hold() -> None:
        nonlocal begun
        async with fleet.pool.slot(0, history()):
            begun += 1
            await free.wait()

    async with fleet.pool:
        await fleet.place()
        async with fleet.pool.slot(0, history(suspect=True)):
            tasks = [asyncio.create_task(hold()) for _ in range(5)]
            await asyncio.sleep(0)
        await until(lambda: begun == 3)
        free.set()
        await asyncio.gather(*tasks)


async def test_a_halved_limit_is_used_again() -> None:
    """After an overload halves the slots of the only endpoint, waiting requests get the remaining slots."""
    fleet = Fleet()
    endpoint = fleet.add("a", limit=8, most=64)
    async with fleet.pool:
        async with fleet.pool.slot(0, history()):
            endpoint.limiter.overloaded()
        assert endpoint.limiter.limit == 4
        assert await asyncio.wait_for(asyncio.gather(*(fleet.place() for _ in range(20))), 240) == ["a"] * 20
    assert ConcurrencyChanged(concurrency=4) in fleet.told


async def test_an_endpoint_that_is_down_gets_no_requests() -> None:
    """An endpoint that is down gets no requests until a probe succeeds; the other gets all of them."""
    back = asyncio.Event()

    async def probe() -> None:
        if not back.is_set():
            raise UnavailableError("away")

    fleet = Fleet(patience_s=1e9)
    a, b = fleet.add("a", probe=probe), fleet.add("b")
    async with fleet.pool:
        assert await fleet.place(last=b) == "a"
        await fleet.pool.unavailable(a, UnavailableError("away"), 1)
        assert [await fleet.place() for _ in range(5)] == ["b"] * 5
        back.set()
        await until(lambda: a.is_open)
        assert await fleet.place(last=b) == "a"


async def test_all_endpoints_down_for_too_long_end_the_wait() -> None:
    """A waiting request raises UnavailableError only after the patience with every endpoint."""

    async def probe() -> None:
        raise UnavailableError("still away")

    fleet = Fleet(patience_s=100)
    a, b = fleet.add("a", probe=probe), fleet.add("b", probe=probe)
    async with fleet.pool:
        await asyncio.gather(fleet.place(last=a), fleet.place(last=b))
        await fleet.pool.unavailable(a, UnavailableError("away"), 1)
        await fleet.pool.unavailable(b, UnavailableError("away"), 1)
        with pytest.raises(UnavailableError, match="still away"):
            await asyncio.wait_for(fleet.place(), 240)
        assert fleet.now >= 100


async def test_an_answer_restarts_the_probes_of_a_lost_endpoint() -> None:
    """After its patience, an endpoint is probed again with the next answer of another endpoint."""
    away = True

    async def probe() -> None:
        if away:
            raise UnavailableError("away")

    fleet = Fleet(patience_s=10)
    a, b = fleet.add("a", probe=probe), fleet.add("b")
    async with fleet.pool:
        await asyncio.gather(fleet.place(last=b), fleet.place(last=a))
        await fleet.pool.unavailable(a, UnavailableError("away"), 1)
        await until(lambda: a.end is not None)
        away = False
        fleet.pool.answered(b)
        await until(lambda: a.is_open)


async def test_an_endpoint_that_was_given_up_unproven_is_proven_before_its_first_image() -> None:
    """An endpoint that was down from the start gets no image before its proof succeeds."""
    away, proofs = True, 0

    async def prove() -> None:
        nonlocal proofs
        proofs += 1
        if away:
            raise UnavailableError("away")

    fleet = Fleet(patience_s=10)
    a, b = fleet.add("a", prove=prove), fleet.add("b")
    async with fleet.pool:
        fleet.pool.prove_all()
        await until(lambda: a.end is not None and b.is_open)
        before = proofs
        fleet.pool.answered(b)
        await until(lambda: a.end is not None and proofs > before)
        assert not a.is_open
        away = False
        fleet.pool.answered(b)
        await until(lambda: a.is_open)


async def test_a_fallback_replaces_an_endpoint_during_its_outage() -> None:
    """The fallback gets the requests while the first endpoint is down, and no more once it is up."""
    away = True

    async def probe() -> None:
        if away:
            raise UnavailableError("away")

    fleet = Fleet(steps_in=True, patience_s=1e9)
    first = fleet.add("first", probe=probe)
    fleet.add("second", rank=1)
    async with fleet.pool:
        assert await fleet.place() == "first"
        assert fleet.pool.first_away() is None
        await fleet.pool.unavailable(first, UnavailableError("it left"), 1)
        assert str(fleet.pool.first_away()) in ("it left", "away")
        assert await fleet.place() == "second"
        away = False
        await until(lambda: first.is_open)
        assert await fleet.place() == "first"


async def test_a_fallback_with_one_slot_serves_all_images_that_wait() -> None:
    """During an outage, each slot that comes free at the fallback goes to the next image that waits."""

    async def probe() -> None:
        raise UnavailableError("away")

    fleet = Fleet(steps_in=True, patience_s=1e9)
    first = fleet.add("first", probe=probe)
    fleet.add("second", rank=1)
    async with fleet.pool:
        await asyncio.gather(fleet.place(), fleet.place(rank=1))
        await fleet.pool.unavailable(first, UnavailableError("away"), 1)
        asked = asyncio.gather(*(fleet.place() for _ in range(10)))
        assert await asyncio.wait_for(asked, 240) == ["second"] * 10


async def test_a_busy_first_endpoint_keeps_its_images() -> None:
    """Images wait for the slots of a busy first endpoint; the fallback does not get them."""
    fleet = Fleet(steps_in=True)
    fleet.add("first")
    fleet.add("second", rank=1)
    async with fleet.pool:
        assert set(await asyncio.gather(*(fleet.place() for _ in range(10)))) == {"first"}


async def test_without_unavailable_a_fallback_does_not_replace_an_endpoint() -> None:
    """Without `unavailable` among the reasons, images wait for the first endpoint during its outage."""

    async def probe() -> None:
        raise UnavailableError("still away")

    fleet = Fleet(patience_s=50)
    first = fleet.add("first", probe=probe)
    fleet.add("second", rank=1)
    async with fleet.pool:
        await fleet.place()
        await fleet.pool.unavailable(first, UnavailableError("away"), 1)
        with pytest.raises(UnavailableError, match="still away"):
            await asyncio.wait_for(fleet.place(), 240)
        assert await fleet.place(rank=1) == "second"  # an image that the first refused


async def test_a_refused_image_does_not_wait_for_a_fallback_that_is_down() -> None:
    """A refused image fails at once if its fallback is down, so that it takes no room of other images."""

    async def refused_connection() -> None:
        raise UnavailableError("connection refused")

    fleet = Fleet(patience_s=1e9)
    fleet.add("first")
    fleet.add("second", rank=1, prove=refused_connection)
    async with fleet.pool:
        with pytest.raises(UnavailableError, match="connection refused"):
            await asyncio.wait_for(fleet.place(rank=1), 240)
        assert await fleet.place() == "first"


async def test_a_fatal_first_proof_ends_the_wait() -> None:
    """A fatal error before any endpoint was proven is raised, although a fallback is up."""

    async def blind() -> None:
        raise FatalBackendError("it cannot see", kind="no_vision")

    fleet = Fleet(steps_in=True)
    fleet.add("first", prove=blind)
    fleet.add("second", rank=1)
    async with fleet.pool:
        with pytest.raises(FatalBackendError, match="cannot see"):
            await asyncio.wait_for(fleet.place(), 240)


async def test_a_closed_endpoint_leaves_its_images_to_others() -> None:
    """A closed endpoint gets no more requests, with a notice; with the last one the error is raised."""
    fleet = Fleet()
    a, b = fleet.add("a"), fleet.add("b")
    async with fleet.pool:
        await asyncio.gather(fleet.place(last=b), fleet.place(last=a))
        fleet.pool.lose(a, FatalBackendError("key refused", kind="auth"))
        assert [await fleet.place(last=b) for _ in range(3)] == ["b"] * 3
        assert Notice(message="a gets no more images: key refused") in fleet.told
        fleet.pool.lose(b, FatalBackendError("key refused there, too", kind="auth"))
        with pytest.raises(FatalBackendError, match="key refused"):
            await fleet.place()


async def test_endpoints_can_be_added_and_removed() -> None:
    """A removed endpoint gets no more requests, and an added one gets them."""
    fleet = Fleet()
    a = fleet.add("a")
    async with fleet.pool:
        assert await fleet.place() == "a"
        fleet.add("b")
        fleet.pool.remove(a)
        assert [await fleet.place() for _ in range(3)] == ["b"] * 3
        assert fleet.pool.limit == 1


async def test_images_on_their_way_are_bounded() -> None:
    """As many images wait as all endpoints have slots, but at least `ahead` and at most 64."""
    for limits, rooms in (((1,), 3), ((4, 4), 16), ((150, 50), 264)):
        fleet = Fleet()
        for n, limit in enumerate(limits):
            fleet.add(str(n), limit=limit)
        assert fleet.pool.most_rooms(256) == rooms
        inside = 0

        async def request(pool: EndpointPool = fleet.pool) -> None:
            nonlocal inside
            async with pool.room():
                inside += 1
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(request()) for _ in range(rooms + 50)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert inside == rooms
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_free_fallback_wakes_no_waiting_image() -> None:
    """Images that wait for a busy first endpoint are not woken for the free slots of the fallback."""
    fleet = Fleet(steps_in=True)
    fleet.add("first")
    fleet.add("second", rank=1, limit=4)
    looks = 0

    class Looks(CrashHistory):
        def must_be_alone(self) -> bool:
            nonlocal looks
            looks += 1
            return False

    async def wait() -> str:
        async with fleet.pool.slot(0, Looks()) as endpoint:
            return endpoint.place

    async with fleet.pool:
        await fleet.place(rank=1)
        async with fleet.pool.slot(0, history()):
            waiting = [asyncio.create_task(wait()) for _ in range(10)]
            for _ in range(50):
                await fleet.place(rank=1)
            before = looks
        assert set(await asyncio.gather(*waiting)) == {"first"}
    assert before == 10
    assert looks <= before + 30


async def test_a_refused_image_gets_the_slot_of_the_fallback() -> None:
    """A slot of the fallback goes to an image that waits for it, not to images that wait for the first."""
    fleet = Fleet()
    fleet.add("first")
    fleet.add("second", rank=1)
    async with fleet.pool:
        await asyncio.gather(fleet.place(), fleet.place(rank=1))
        async with fleet.pool.slot(0, history()):
            patient = [asyncio.create_task(fleet.place()) for _ in range(5)]
            refused = [asyncio.create_task(fleet.place(rank=1)) for _ in range(5)]
            assert await asyncio.wait_for(asyncio.gather(*refused), 240) == ["second"] * 5
            assert not any(task.done() for task in patient)
        await asyncio.gather(*patient)


async def test_closing_waits_for_the_tasks_in_the_background() -> None:
    """When the pool is closed, a task in its background has been cancelled and has ended."""
    fleet = Fleet()
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # as a request that is closed
            ended = True

    async with fleet.pool:
        fleet.pool.in_background(work)
        await asyncio.sleep(0)
    assert ended


async def test_a_task_in_the_background_that_has_ended_takes_no_memory() -> None:
    """A pool that is open for days keeps none of the tasks that have ended."""
    fleet = Fleet()
    async with fleet.pool:
        ended = weakref.WeakSet(fleet.pool.in_background(is_well) for _ in range(10))
        await until(lambda: all(task.done() for task in ended))
        await asyncio.sleep(0)
        gc.collect()
        assert not ended
