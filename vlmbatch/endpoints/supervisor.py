"""Puts the endpoints of a run to work: guards each, and follows the files that name them."""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

from vlmbatch.config import RunConfig
from vlmbatch.endpoints.canary import QUESTIONS, Canary
from vlmbatch.endpoints.circuit_breaker import RUN_PATIENCE_S, CircuitBreaker
from vlmbatch.endpoints.discovery import EndpointUrls, at
from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.limiter import Limiter, RateLimiter
from vlmbatch.endpoints.pool import EndpointPool
from vlmbatch.endpoints.preflight import Preflight, opened_by, who_is_there
from vlmbatch.errors import BackendError, VlmbatchError
from vlmbatch.events import EndpointPaused, EndpointProven, EndpointResumed, Event, QueueMeasured, tell
from vlmbatch.imaging.prepare import uniform
from vlmbatch.machine import preparers
from vlmbatch.protocols import Backend, Observer, Sleep
from vlmbatch.records import Endpoint, Request

WATCH_S = 2.0
"""How often endpoints are asked how many requests wait there."""
FOLLOW_S = 2.0
"""How often the files of --base-url are looked at."""
WORKERS_TO_COME = 1024
"""So many images may be on their way at least where endpoints may be added to a run."""


class EndpointSupervisor:
    """The endpoints of a run."""

    def __init__(
        self,
        config: RunConfig,
        question: Request,
        metered: Callable[[Backend], Backend],
        notify: Observer,
        sleep: Sleep,
        stack: AsyncExitStack,
    ) -> None:
        """Backends that are opened while the run goes on are `metered`, and closed by `stack`."""
        self.lanes = EndpointPool(
            ahead=preparers(), notify=notify, steps_in="unavailable" in config.endpoint.reasons
        )
        self._config = config
        self._question = question
        self._metered = metered
        self._pace = RateLimiter(config.run.rpm, sleep=sleep)
        self._notify = notify
        self._sleep = sleep
        self._stack = stack
        self._by_url: dict[str, PooledEndpoint] = {}

    def take(self, met: Preflight) -> None:
        """Let it take part."""
        lane = PooledEndpoint(met.backend, rank=met.plan.rank, place=met.place)
        guard(lane, met, self._question, self._pace, self.lanes, self._notify, self._sleep)
        self.lanes.add(lane)
        url = met.plan.config.endpoint.url
        if url is not None and lane.rank == 0:
            self._by_url[url] = lane

    @asynccontextmanager
    async def at_work(self, addresses: EndpointUrls) -> AsyncIterator[None]:
        """Look after them while the ``async with`` lasts."""
        async with self.lanes:
            self.lanes.beside(self._watch())
            if addresses.may_change:
                self.lanes.beside(self._follow(addresses))
            yield

    async def unload(self) -> None:
        """Let those that keep a model loaded let go of it; what hinders that is told, and ends nothing."""
        for lane in [lane for lane in self.lanes if lane.proven and lane.end is None]:
            try:
                await lane.backend.unload()
            except BackendError as error:
                tell(self._notify, f"{lane.place} has not unloaded the model: {error}")

    def most_rooms(self, *, may_grow: bool) -> int:
        """How many images can ever be on their way at once."""
        most = self.lanes.most_rooms(most_concurrency(self._config))
        return max(most, WORKERS_TO_COME) if may_grow else most

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All that took part, where these are several."""
        lanes = [lane for lane in self.lanes if lane.is_met or not lane.leaving]
        return tuple(map(_known, lanes)) if len(lanes) > 1 else ()

    async def _watch(self) -> None:
        """Ask how many requests wait at each endpoint that tells, and ask it less where these are ours."""
        while True:
            await self._sleep(WATCH_S)
            for lane in [lane for lane in self.lanes if lane.is_open]:
                load = await lane.backend.load()
                if load is not None:
                    lane.slots.queueing(load.waiting)
                    self._notify(
                        QueueMeasured(endpoint=lane.place, running=load.running, waiting=load.waiting)
                    )

    async def _follow(self, addresses: EndpointUrls) -> None:
        while True:
            await self._sleep(FOLLOW_S)
            if await asyncio.to_thread(addresses.has_changed):
                try:
                    await self._change(frozenset(await asyncio.to_thread(addresses.read)))
                except VlmbatchError as error:
                    tell(self._notify, f"{error}; those asked so far are asked on")

    async def _change(self, urls: frozenset[str]) -> None:
        """Ask these, and no others."""
        for url in [url for url in self._by_url if url not in urls]:
            lane = self._by_url.pop(url)
            self.lanes.leave(lane)
            tell(self._notify, f"{lane.place} is asked no more, since --base-url does not name it any more")
        for url in sorted(urls - self._by_url.keys()):
            met = await opened_by(at(self._config, url), self._metered, self._stack)
            tell(self._notify, f"{met.place} is asked from now on, since --base-url names it")
            self.take(met)


def _known(lane: PooledEndpoint) -> Endpoint:
    return lane.endpoint if lane.is_met else Endpoint(backend=lane.backend.name, url=lane.place, model="")


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


def limiter_of(
    config: RunConfig, endpoint: Endpoint, backend: Backend, pace: RateLimiter, lanes: EndpointPool
) -> Limiter:
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


def guard(
    lane: PooledEndpoint,
    met: Preflight,
    question: Request,
    pace: RateLimiter,
    lanes: EndpointPool,
    notify: Observer,
    sleep: Sleep,
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
        CircuitBreaker(
            prove=prove,
            probe=probe,
            patience_s=config.run.patience_s(RUN_PATIENCE_S) if known_away is None else 0.0,
            try_s=PROBE_S + QUESTIONS * deadline_s,
            least_try_s=config.run.timeout,
            notify=hear,
            sleep=sleep,
        )
    )


def _tell_load(lane: PooledEndpoint, took_s: float, notify: Observer) -> None:
    if took_s > SLOW_LOAD_S:
        tell(notify, f"{lane.endpoint.model} was loaded in {took_s:.0f} s")


def _model_of(lanes: EndpointPool, lane: PooledEndpoint) -> str | None:
    """The model that an endpoint has to have which finds its own: that of those it shares the images with."""
    return next((other.endpoint.model for other in lanes if other.is_met and other.rank == lane.rank), None)
