"""The guards of a run, made from its options: how much is asked at once, and whether anybody is there."""

import asyncio
import resource
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from vlmbatch.availability import RUN_PATIENCE_S, Availability
from vlmbatch.canary import QUESTIONS, Canary
from vlmbatch.config import RunConfig
from vlmbatch.config.groups import USUAL_SIDE
from vlmbatch.config.spec import AUTO
from vlmbatch.errors import ImageError
from vlmbatch.events import EndpointPaused, EndpointProven, EndpointResumed, Event, tell
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.memory import Memory
from vlmbatch.imaging.prepare import prepare, uniform
from vlmbatch.imaging.sizing import Sizing, sizing_of
from vlmbatch.lane import Lane
from vlmbatch.lanes import Lanes
from vlmbatch.limiter import Limiter, Pace
from vlmbatch.meeting import Met, who_is_there
from vlmbatch.protocols import Backend, Observer, Sleep
from vlmbatch.records import Endpoint, Request

FIRST_CONCURRENCY = 16
MOST_CONCURRENCY = 256
"""Where `--concurrency auto` starts, and how far it goes: vLLM works on 256 requests at once by default."""
BEYOND_SLOTS = 4
"""So many more requests than slots are worth asking where slots are told: the server of llama.cpp has as many
threads beyond its slots, and with 16 connections at 4 slots some waited until all others were done."""
OTHER_FILES = 32
"""So many files a run may have open beside one connection a request."""
PROBE_S = 10.0
"""How long an endpoint that is well may take to say so."""
SLOW_LOAD_S = 2.0
"""From so many seconds on a person wants to know what was waited for."""
WARM_UP = 3
"""So many times --timeout is how long a cold model may take for its first answer."""


def limiter_of(config: RunConfig, endpoint: Endpoint, backend: Backend, pace: Pace, lanes: Lanes) -> Limiter:
    """The limiter that the options ask for: fixed, or one that finds the endpoint's best by itself."""
    fixed = config.run.concurrency
    most = most_concurrency(config)
    if endpoint.slots is not None:
        most = min(most, endpoint.slots + BEYOND_SLOTS)
    start = fixed or min(endpoint.slots or min(backend.concurrency, FIRST_CONCURRENCY), most)
    return Limiter(
        start,
        most=None if fixed else most,
        pace=pace,
        waiting=lambda: lanes.somebody_waits,
        changed=lanes.changed,
    )


def most_concurrency(config: RunConfig) -> int:
    """How many requests at once one endpoint may get at most."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES
    return config.run.concurrency or max(1, min(MOST_CONCURRENCY, files))


def sizing_for(config: RunConfig, endpoint: Endpoint, notify: Observer) -> Sizing:
    """Which sizes pictures are sent in to this model; what a person should know of that is told.

    Raises:
        ConfigError: --image-tokens, and nobody knows how this model counts them.
    """
    sizing = sizing_of(config.image, endpoint.model, endpoint.architecture)
    budget, least = config.image.image_tokens, sizing.least_tokens
    if config.image.max_size == AUTO and sizing.family is None:
        tell(
            notify,
            f"how {endpoint.model} counts the tokens of pictures is not known: --max-size auto is "
            f"{USUAL_SIDE} for it (docs/image-tokens.md)",
        )
    if budget is not None and least > budget:
        at_least = f"a photo costs {endpoint.model} at least {least} tokens"
        tell(notify, f"{at_least}, more than --image-tokens {budget}")
    return sizing


def preparer_of(
    config: RunConfig, sizing: Sizing, memory: Memory
) -> Callable[[bytes, int | None], PreparedImage]:
    """What prepares pictures as the options say, at most so large, in bounded memory; for many threads."""

    def prepared(data: bytes, longest: int | None) -> PreparedImage:
        fit = sizing if longest is None else sizing.at_most(longest)
        try:
            return prepare(data, config.image, memory.room, fit)
        except ImageError:  # decoders have many words for a lack of memory
            memory.prove()
            raise

    return prepared


def guard(
    lane: Lane, met: Met, question: Request, pace: Pace, lanes: Lanes, notify: Observer, sleep: Sleep
) -> None:
    """Give an endpoint its slots, and what tells whether it is there; who is not met yet is met then.

    Where it is known that nobody is there, it stays so.
    """
    config = met.plan.config
    known_away = None if met.endpoint is None else met.away
    deadline_s = WARM_UP * config.run.timeout
    canary = Canary(met.backend, question, uniform, deadline_s=deadline_s, tell=partial(tell, notify))

    def is_known(endpoint: Endpoint) -> None:
        lane.meet(endpoint, limiter_of(config, endpoint, met.backend, pace, lanes))

    async def prove() -> None:
        if known_away is not None:
            raise known_away
        if not lane.is_met:
            is_known(await who_is_there(met, _model_of(lanes, lane)))
        _tell_load(lane, await met.backend.warm_up(question.generation, deadline_s), notify)
        if config.endpoint.canary:
            await canary.prove()
        notify(EndpointProven())

    async def probe() -> None:
        async with asyncio.timeout(PROBE_S):
            await met.backend.probe()
        await canary.ask()

    def hear(event: Event) -> None:
        """Tell where it was, and whether others are there."""
        if isinstance(event, (EndpointPaused, EndpointResumed)):
            notify(replace(event, endpoint=lane.place, others_up=lanes.somebody_besides(lane)))
            lanes.changed()
        else:
            notify(event)

    if met.endpoint is not None:
        is_known(met.endpoint)
    lane.guard(
        Availability(
            prove=prove,
            probe=probe,
            patience_s=config.run.patience_s(RUN_PATIENCE_S) if known_away is None else 0.0,
            try_s=PROBE_S + QUESTIONS * deadline_s,
            least_try_s=config.run.timeout,
            notify=hear,
            sleep=sleep,
        )
    )


def _tell_load(lane: Lane, took_s: float, notify: Observer) -> None:
    if took_s > SLOW_LOAD_S:
        tell(notify, f"{lane.endpoint.model} was loaded in {took_s:.0f} s")


def _model_of(lanes: Lanes, lane: Lane) -> str | None:
    """The model that an endpoint has to have which finds its own: that of those it shares the images with."""
    return next((other.endpoint.model for other in lanes if other.is_met and other.rank == lane.rank), None)
