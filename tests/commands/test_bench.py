"""The load on an endpoint, what counts in a measurement, and the figures that are made of it."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from endpoint import Endpoint

from vlmbatch.commands.bench import Bench, Level, Plan
from vlmbatch.commands.bench.loops import PAUSE_S, arrivals, closed_loop, open_loop
from vlmbatch.commands.bench.plan import LADDER
from vlmbatch.commands.bench.results import (
    Tally,
    has_stopped_growing,
    highest_kept_up,
    knee,
    level_of,
    percentile,
)
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, FatalBackendError, RejectedError, TransientError, UnavailableError
from vlmbatch.events import ignore
from vlmbatch.records import Completion, Usage

ANSWER = Completion(text="a", model="m", finish_reason="stop", usage=Usage(output_tokens=5))


class Clock:
    """A clock that only `sleep` and `ask` put forward. The endpoint takes `took_s` seconds for an answer.

    `yields`: other tasks run before the answer is there.
    """

    def __init__(
        self, took_s: float = 1.0, *, fails: BaseException | None = None, yields: bool = False
    ) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.asked = 0
        self._took_s = took_s
        self._fails = fails
        self._yields = yields

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        end = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, end)

    async def ask(self) -> Completion:
        self.asked += 1
        self.now += self._took_s
        if self._yields:
            await asyncio.sleep(0)
        if self._fails is not None:
            raise self._fails
        return ANSWER


def bench(endpoint: Endpoint, plan: Plan, images: str | None = None, **options: object) -> Bench:
    config = RunConfig.of(".", backend="vllm", base_url=endpoint.url, model="tiny-vision", **options)  # type: ignore[arg-type]
    return Bench(config=config, plan=plan, images=images, notify=ignore)


def levels(*rates: float) -> list[Level]:
    """A level of a closed loop for each throughput, at 1, 2, 4, ... requests at once."""
    return [Level(load=2**n, requests_per_s=rate) for n, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0, 3.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 90, 90.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 102)], 99, 100.0),
        ([1.0, 2.0, 9.0], 100, 9.0),
    ],
)
def test_a_percentile_is_a_measured_value(values: list[float], percent: int, expected: float | None) -> None:
    """The percentile is the smallest value that this percentage of the values does not exceed."""
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("rates", "load"),
    [
        ((), None),
        ((0.0, 0.0), None),
        ((5.0,), 1),
        ((5.0, 9.6, 10.0, 10.0), 2),
        ((5.0, 9.4, 10.0, 10.0), 4),
        ((1.0, 2.0, 4.0), 4),
        ((10.0, 0.0), 1),
    ],
)
def test_the_knee_is_the_smallest_level_near_the_best(rates: tuple[float, ...], load: int | None) -> None:
    """The knee is the smallest level with 95 % of the best throughput; there is none without answers."""
    found = knee(levels(*rates))
    assert (found and found.load) == load


@pytest.mark.parametrize(
    ("rates", "stops"),
    [
        ((10.0, 10.0), False),
        ((10.0, 10.0, 10.0), True),
        ((10.0, 10.4, 10.8), True),
        ((10.0, 10.0, 10.6), False),
        ((10.0, 10.6, 10.6), False),
        ((10.0, 20.0, 12.0, 19.0), True),
    ],
)
def test_the_ladder_ends_after_two_levels_without_growth(rates: tuple[float, ...], stops: bool) -> None:
    """The ladder ends if neither of the last two levels is 5 % above the best one before it."""
    assert has_stopped_growing(levels(*rates)) is stops


def test_the_highest_rate_that_is_kept_up() -> None:
    """A rate is kept up with 95 % of its arrivals per second, and only if all lower rates are."""
    found = [Level(load=n, requests_per_s=rate, offered_per_s=n) for n, rate in ((1, 0.96), (2, 2.0), (4, 3))]
    best = highest_kept_up(found)
    assert best is not None
    assert best.load == 2
    assert highest_kept_up(found[2:]) is None
    assert highest_kept_up([found[2], Level(load=8, requests_per_s=8, offered_per_s=8)]) is None


def test_failures_are_counted_by_kind_and_refusals_apart() -> None:
    """429 and 503 are refused, other failures count by kind, and a level without an answer has no latency."""
    tally = Tally(span_s=2.0)
    busy, gateway = UnavailableError("busy", kind="busy"), TransientError("gateway")
    gateway.status = 503
    for error in (busy, gateway, TransientError("x", kind="timeout"), RejectedError("y"), RejectedError("z")):
        tally.failed(error)
    level = level_of(tally, 4)
    assert (level.refused, level.failures, level.failed) == (2, {"rejected": 2, "timeout": 1}, 3)
    assert (level.answered, level.requests_per_s, level.p50_s, level.max_s) == (0, 0.0, None, None)
    assert tally.error is busy


def test_the_plan_of_the_flags() -> None:
    """Levels are sorted and unique; without --levels and --rate the ladder may end early."""
    usual = Plan.of(levels=None, rate=None, seconds="10", warm_up="3")
    assert (usual.loads, usual.stops_early, usual.seconds, usual.warm_up_s) == (LADDER, True, 10.0, 3.0)
    chosen = Plan.of(levels="16, 1,4,4", rate=None, seconds="1m", warm_up="0")
    assert (chosen.loads, chosen.stops_early, chosen.is_open, chosen.seconds) == (
        (1, 4, 16),
        False,
        False,
        60,
    )
    rates = Plan.of(levels=None, rate="2,0.5", seconds="1", warm_up="0")
    assert (rates.loads, rates.is_open) == ((0.5, 2.0), True)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"levels": "1,x"}, "--levels 1,x is not a list of numbers; write for example --levels 1,4,16"),
        ({"levels": "0"}, "--levels takes numbers above 0 and up to 4096"),
        ({"levels": "1.5"}, "is not a list of numbers"),
        ({"rate": "inf"}, "--rate inf is not a list of numbers; write for example --rate 0.5,1,2"),
        ({"rate": "0.0"}, "--rate takes numbers above 0"),
        ({"rate": "1", "levels": "1"}, "--levels and --rate are both set"),
        ({"seconds": "0"}, "--seconds must be more than 0"),
        ({"warm_up": "-1"}, "--warm-up: '-1' is not a duration; write"),
    ],
)
def test_a_wrong_plan(wrong: dict[str, str], told: str) -> None:
    """A wrong value is refused with a message that names the flag and an example."""
    flags: dict[str, str | None] = {"levels": None, "rate": None, "seconds": "10", "warm_up": "3", **wrong}
    with pytest.raises(ConfigError) as caught:
        Plan.of(**flags)  # type: ignore[arg-type]
    assert told in str(caught.value)


async def test_the_warm_up_does_not_count() -> None:
    """Of a client that asks once per second, only the requests after the warm-up count."""
    clock, tally = Clock(), Tally()
    await closed_loop(clock.ask, tally, 1, Plan(warm_up_s=3.0, seconds=5.0), clock=clock, sleep=clock.sleep)
    assert (clock.asked, len(tally.latencies_s), tally.output_tokens) == (8, 5, 25)
    level = level_of(tally, 1)
    assert (level.requests_per_s, level.p50_s, level.output_tokens_per_s) == (1.0, 1.0, 5.0)


async def test_an_endpoint_slower_than_the_time_is_measured_too() -> None:
    """Each client has one counted request at least, and its whole time counts in the throughput."""
    clock, tally = Clock(took_s=60.0), Tally()
    await closed_loop(clock.ask, tally, 2, Plan(warm_up_s=3.0, seconds=10.0), clock=clock, sleep=clock.sleep)
    assert tally.latencies_s == [60.0, 60.0]
    assert level_of(tally, 2).requests_per_s == pytest.approx(2 / 60)


async def test_a_client_waits_after_a_failure() -> None:
    """Refusals that come at once do not become a flood: a client of a closed loop waits after each."""
    clock, tally = Clock(took_s=0.0, fails=UnavailableError("busy", kind="busy")), Tally()
    await closed_loop(clock.ask, tally, 1, Plan(warm_up_s=0.0, seconds=1.0), clock=clock, sleep=clock.sleep)
    assert set(clock.slept) == {PAUSE_S}
    assert tally.refused == clock.asked <= 1 / PAUSE_S + 1


@pytest.mark.parametrize("loop", [closed_loop, open_loop])
async def test_a_fatal_error_ends_the_load(loop: Callable[..., object]) -> None:
    """An error with which no request can succeed ends both kinds of load, as itself."""
    clock = Clock(fails=FatalBackendError("no key"))
    work = loop(clock.ask, Tally(), 3, Plan(), clock=clock, sleep=clock.sleep)
    with pytest.raises(FatalBackendError, match="no key"):
        await work  # type: ignore[misc]


async def test_a_latency_of_an_open_loop_begins_at_the_planned_arrival() -> None:
    """A slow endpoint cannot hide its queue: the wait of a request before it is sent counts, too."""
    clock, tally = Clock(took_s=10.0, yields=True), Tally()
    plan = Plan(warm_up_s=0.0, seconds=2.0, is_open=True)
    planned = list(arrivals(2.0, clock.now, clock.now, clock.now + 2.0))
    assert len(planned) > 2
    ends = [planned[0] + 10.0]
    for _ in planned[1:]:
        ends.append(ends[-1] + 10.0)
    await open_loop(clock.ask, tally, 2.0, plan, most=1, clock=clock, sleep=clock.sleep)
    expected = [end - at for end, at in zip(ends, planned, strict=True)]
    assert tally.latencies_s == pytest.approx(expected)
    assert tally.capped
    assert tally.offered == len(planned)
    assert level_of(tally, 2.0).requests_per_s < 0.2


def test_arrivals_are_random_and_repeatable() -> None:
    """The arrivals have the rate on average and are the same each time; one at least follows the warm-up."""
    times = list(arrivals(10.0, 0.0, 100.0, 1000.0))
    assert times == list(arrivals(10.0, 0.0, 100.0, 1000.0)) == sorted(times)
    assert 9_500 < len(times) < 10_500
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) > 5 * sum(gaps) / len(gaps)
    assert [at for at in arrivals(0.001, 0.0, 1.0, 2.0) if at >= 1.0]


async def test_a_level_has_its_number_of_requests_in_flight(endpoint: Endpoint) -> None:
    """At level 4 exactly 4 requests are at the endpoint at once, each with a new picture, none twice."""
    endpoint.hold_until(lambda: endpoint.open_questions == 4, after=1)
    measured = bench(endpoint, Plan(loads=(4,), warm_up_s=0.05, seconds=0.05), max_tokens=7)
    await measured.measure()
    assert endpoint.most_open_questions == 4
    pictures = [picture for question in endpoint.questions for picture in question.pictures]
    assert len({picture.sha256 for picture in pictures}) == len(endpoint.questions) >= 9
    assert {(picture.width, picture.height) for picture in pictures} == {(1024, 768)}
    assert {question.body["max_tokens"] for question in endpoint.questions} == {7}
    (level,) = measured.report.levels
    assert 4 <= level.answered <= len(endpoint.questions) - 5
    assert level.output_tokens_per_s > level.requests_per_s > 0


async def test_an_open_loop_does_not_wait_for_answers(endpoint: Endpoint) -> None:
    """Requests of an open loop arrive while none is answered."""
    endpoint.hold_until(lambda: endpoint.open_questions >= 5, after=1)
    measured = bench(endpoint, Plan(loads=(50.0,), is_open=True, warm_up_s=0.0, seconds=0.3))
    await measured.measure()
    (level,) = measured.report.levels
    assert level.answered == len(endpoint.questions) - 1 >= 5
    assert level.offered_per_s == pytest.approx(level.answered / 0.3)


async def test_nothing_is_sent_twice(endpoint: Endpoint) -> None:
    """A failed request is not retried, and an answer that is cut by --max-tokens counts as an answer."""
    endpoint.script = lambda request: ("length", "500", "429", "empty")[(request.chat or 0) % 4]
    measured = bench(endpoint, Plan(loads=(4,), warm_up_s=0.0, seconds=0.01))
    await measured.measure()
    (level,) = measured.report.levels
    assert level.answered + level.failed + level.refused == len(endpoint.questions) - 1
    assert level.refused >= 1
    assert list(level.failures) == ["server_error"]
    assert level.answered >= 2
    assert len({question.pictures[0].sha256 for question in endpoint.questions}) == len(endpoint.questions)


async def test_a_connection_that_the_server_has_closed_is_no_failure(endpoint: Endpoint) -> None:
    """A request on a reused connection that was closed before is sent again, and does not count as failed."""
    endpoint.script = lambda request: "idleclose:0.02"
    measured = bench(endpoint, Plan(loads=(1,), warm_up_s=0.0, seconds=0.1))
    await measured.measure()
    (level,) = measured.report.levels
    assert (level.failed, level.refused) == (0, 0)
    assert level.answered == len(endpoint.questions) - 1 >= 1


async def test_the_images_of_the_user_are_sent_in_turn(
    photos: Callable[..., Path], endpoint: Endpoint
) -> None:
    """The images are prepared as in a run, a broken one is left out, and a note tells of repeats."""
    folder = photos(2, (80, 60))
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff nothing")
    measured = bench(endpoint, Plan(loads=(4,), warm_up_s=0.0, seconds=0.01), str(folder), max_size=60)
    await measured.measure()
    sent = [question.pictures[0] for question in endpoint.questions]
    assert len({picture.sha256 for picture in sent}) == 2
    assert {(picture.width, picture.height) for picture in sent} == {(60, 45)}
    left_out, repeats = measured.report.notes
    assert "1 image cannot be sent, the first is" in left_out
    assert "each image was sent" in repeats


async def test_a_load_without_any_answer_ends_the_measurement(endpoint: Endpoint) -> None:
    """After levels with answers, a level without any is the last one, and the results stay."""
    measured = bench(endpoint, Plan(loads=(1, 2, 4), warm_up_s=0.0, seconds=0.01))
    endpoint.script = lambda request: "429" if measured.load == 2 else "ok"
    await measured.measure()
    assert [level.load for level in measured.report.levels] == [1, 2]
    assert measured.report.notes == [
        "no request was answered at 2 requests at once, so the measurement ended there"
    ]
