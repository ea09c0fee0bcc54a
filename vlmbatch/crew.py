"""Puts the endpoints of a run to work: guards each, and follows the files that name them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from vlmbatch.addresses import Addresses
from vlmbatch.config import RunConfig
from vlmbatch.errors import BackendError, VlmbatchError
from vlmbatch.events import QueueMeasured, tell
from vlmbatch.guards import guard, most_concurrency
from vlmbatch.lane import Lane
from vlmbatch.lanes import Lanes
from vlmbatch.limiter import Pace
from vlmbatch.machine import preparers
from vlmbatch.meeting import Met, opened_by
from vlmbatch.plans import at
from vlmbatch.protocols import Backend, Observer, Sleep
from vlmbatch.records import Endpoint, Request

WATCH_S = 2.0
"""How often endpoints are asked how many requests wait there."""
FOLLOW_S = 2.0
"""How often the files of --base-url are looked at."""
WORKERS_TO_COME = 1024
"""So many images may be on their way at least where endpoints may be added to a run."""


class Crew:
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
        self.lanes = Lanes(
            ahead=preparers(), notify=notify, steps_in="unavailable" in config.endpoint.reasons
        )
        self._config = config
        self._question = question
        self._metered = metered
        self._pace = Pace(config.run.rpm, sleep=sleep)
        self._notify = notify
        self._sleep = sleep
        self._stack = stack
        self._by_url: dict[str, Lane] = {}

    def take(self, met: Met) -> None:
        """Let it take part."""
        lane = Lane(met.backend, rank=met.plan.rank, place=met.place)
        guard(lane, met, self._question, self._pace, self.lanes, self._notify, self._sleep)
        self.lanes.add(lane)
        url = met.plan.config.endpoint.url
        if url is not None and lane.rank == 0:
            self._by_url[url] = lane

    @asynccontextmanager
    async def at_work(self, addresses: Addresses) -> AsyncIterator[None]:
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

    async def _follow(self, addresses: Addresses) -> None:
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


def _known(lane: Lane) -> Endpoint:
    return lane.endpoint if lane.is_met else Endpoint(backend=lane.backend.name, url=lane.place, model="")
