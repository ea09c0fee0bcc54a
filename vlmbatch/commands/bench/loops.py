"""The two ways to put load on an endpoint: a number of requests at once, or a rate of arrivals."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator

from vlmbatch.aio import first
from vlmbatch.commands.bench.plan import Plan
from vlmbatch.commands.bench.results import Tally
from vlmbatch.errors import BackendError, FatalBackendError
from vlmbatch.protocols import Sleep
from vlmbatch.records import Completion

Ask = Callable[[], Awaitable[Completion]]
"""Sends one request with the next picture; raises BackendError."""
Clock = Callable[[], float]

PAUSE_S = 0.1
"""After a failure, a client of a closed loop waits this long, so that refusals do not become a flood."""
MOST_OUTSTANDING = 512
"""So many requests of an open loop may be out at once; each needs an open file."""
SEED = 1


async def closed_loop(
    ask: Ask,
    tally: Tally,
    at_once: int,
    plan: Plan,
    *,
    clock: Clock = time.monotonic,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Keep this many requests in flight; each client sends its next request when it has its answer.

    Counted are requests that begin after the warm-up, and each client has at least one of them, however slow
    the endpoint is. All of them are awaited. The time of the throughput is that of the counted requests, so
    that neither the warm-up nor the wait for the last answers changes it.

    Raises:
        FatalBackendError: no request can succeed.
    """
    start = clock() + plan.warm_up_s
    end = start + plan.seconds

    async def client() -> None:
        counted = False
        while not counted or clock() < end:
            began = clock()
            error: BackendError | None = None
            try:
                answer = await ask()
            except FatalBackendError:
                raise
            except BackendError as failure:
                error = failure
            took_s = clock() - began
            if error is not None:
                await sleep(PAUSE_S)
            if began < start:
                continue
            counted = True
            tally.span_s += (clock() - began) / at_once
            if error is None:
                tally.answered(took_s, answer.usage.output_tokens)
            else:
                tally.failed(error)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(client())
    except BaseExceptionGroup as error:
        raise first(error) from error


async def open_loop(
    ask: Ask,
    tally: Tally,
    rate: float,
    plan: Plan,
    *,
    most: int = MOST_OUTSTANDING,
    clock: Clock = time.monotonic,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Send this many requests per second on average, at random times, whether or not answers come.

    Counted are requests that are planned after the warm-up. The latency begins at the planned time, so that a
    slow endpoint cannot hide its queue. At most `most` requests are out at once; the next ones wait here.

    Raises:
        FatalBackendError: no request can succeed.
    """
    start = clock() + plan.warm_up_s
    room = asyncio.Semaphore(most)
    first_end: float | None = None

    async def one(planned: float) -> None:
        nonlocal first_end
        try:
            answer = await ask()
        except FatalBackendError:
            raise
        except BackendError as error:
            if planned >= start:
                tally.failed(error)
            return
        finally:
            room.release()
        if planned >= start:
            now = clock()
            first_end = now if first_end is None else first_end
            tally.answered(now - planned, answer.usage.output_tokens)
            tally.span_s = max(plan.seconds, now - first_end)

    try:
        async with asyncio.TaskGroup() as group:
            for planned in arrivals(rate, start - plan.warm_up_s, start, start + plan.seconds):
                await sleep(max(planned - clock(), 0.0))
                tally.capped |= room.locked()
                await room.acquire()
                tally.offered += planned >= start
                group.create_task(one(planned))
    except BaseExceptionGroup as error:
        raise first(error) from error


def arrivals(rate: float, began: float, start: float, end: float) -> Iterator[float]:
    """The times of a Poisson process from `began` to `end`, the same each time; one or more after `start`."""
    dice = random.Random(SEED)
    at, has_counted = began, False
    while True:
        at += dice.expovariate(rate)
        if at > end and has_counted:
            return
        has_counted |= at >= start
        yield at
