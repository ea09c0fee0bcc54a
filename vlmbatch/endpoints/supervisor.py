"""Puts endpoints into the pool, protects each, polls their load, and follows the files that name them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from vlmbatch import system
from vlmbatch.aio import first
from vlmbatch.backends.confirm import cold_s
from vlmbatch.backends.http.hints import HINT_S
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.adaptive import FIRST_CONCURRENCY
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.canary import Canary, proof_s
from vlmbatch.endpoints.circuit_breaker import RUN_PATIENCE_S, CircuitBreaker
from vlmbatch.endpoints.connection_watch import ConnectionWatch
from vlmbatch.endpoints.discovery import EndpointUrls, spec_at
from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.known_limits import KnownLimits
from vlmbatch.endpoints.limiter import Limiter, RateLimiter
from vlmbatch.endpoints.pool import EndpointPool
from vlmbatch.endpoints.preflight import EndpointOpener, Preflight, identify
from vlmbatch.endpoints.slow_notice import SlowNotice
from vlmbatch.errors import BackendError, UnreachableError, VlmbatchError
from vlmbatch.events import EndpointPaused, EndpointProven, EndpointResumed, Event, QueueMeasured, tell
from vlmbatch.machine import preparers
from vlmbatch.protocols import Observer, Sleep
from vlmbatch.records import Endpoint, Request

MOST_CONCURRENCY = 256
"""The largest limit of `--concurrency auto`: vLLM runs 256 requests at once by default."""
BEYOND_SLOTS = 4
"""If a server reports its slots, this many requests more pay off: llama-server has as many threads beyond its
slots, and with 16 connections at 4 slots some waited until all others were done."""
OTHER_FILES = 32
"""A run may have this many files open besides one connection a request."""
SLOW_LOAD_S = 2.0
"""A model load of at least this many seconds is reported."""
WATCH_S = 2.0
"""The interval between two questions for an endpoint's load."""
FOLLOW_S = 2.0
"""The interval between two looks at the files of --base-url."""
WORKERS_TO_COME = 1024
"""If endpoints may be added later, at least this many images may be on their way at once."""


class EndpointSupervisor:
    """Looks after the endpoints of a run or session."""

    def __init__(
        self,
        config: RunConfig,
        question: Request,
        opener: EndpointOpener,
        bugs: Bugs,
        notify: Observer,
        sleep: Sleep,
        *,
        known_limits: KnownLimits,
        recovers: bool = False,
    ) -> None:
        """`question` has the generation options of canary and warm-up. `known_limits` are those of earlier
        runs. `recovers`: see EndpointPool.
        """
        self._bugs = bugs
        self.pool = EndpointPool(
            ahead=preparers(),
            notify=notify,
            bugs=bugs,
            fallbacks_step_in="unavailable" in config.endpoint.reasons,
            recovers=recovers,
            sleep=sleep,
        )
        self._config = config
        self._question = question
        self._opener = opener
        self._known_limits = known_limits
        self._rate = RateLimiter(config.run.rpm, sleep=sleep)
        self._notify = notify
        self._sleep = sleep
        self._by_url: dict[str, PooledEndpoint] = {}

    def add(self, preflight: Preflight) -> None:
        """Put this endpoint into the pool, with a limiter and a circuit breaker of its own."""
        endpoint = PooledEndpoint(preflight.backend, rank=preflight.spec.rank, place=preflight.place)
        if preflight.endpoint is not None:
            self.identified(endpoint, preflight, preflight.endpoint)
        breaker = EndpointBreaker(endpoint, preflight, self, self._question, self._notify, self._sleep)
        endpoint.protect(breaker)
        self.pool.add(endpoint)
        url = preflight.spec.config.endpoint.url
        if url is not None and endpoint.rank == 0:
            self._by_url[url] = endpoint

    def identified(self, endpoint: PooledEndpoint, preflight: Preflight, identity: Endpoint) -> None:
        """Preflight succeeded: give the endpoint its slots."""
        endpoint.identify(identity, self._limiter(preflight, identity))

    def _limiter(self, preflight: Preflight, identity: Endpoint) -> Limiter:
        """The limiter that the options ask for: fixed, or one that adapts to the endpoint."""
        config = preflight.spec.config
        fixed = config.run.concurrency
        most = most_concurrency(config)
        if identity.slots is not None:
            most = min(most, identity.slots + BEYOND_SLOTS)
        start = fixed or min(identity.slots or min(preflight.backend.concurrency, FIRST_CONCURRENCY), most)
        return Limiter(
            start,
            most=None if fixed else most,
            known_limit=self._known_limits.limit(identity),
            pace=self._rate,
            waiting=lambda: self.pool.waiting > 0,
            changed=self.pool.changed,
        )

    @asynccontextmanager
    async def at_work(self, urls: EndpointUrls) -> AsyncIterator[None]:
        """Look after the endpoints inside the ``async with``."""
        async with self.pool:
            self.pool.in_background(self._watch)
            self.pool.in_background(ConnectionWatch(self.pool, self._bugs, self._sleep).run)
            if urls.may_change:
                self.pool.in_background(self._follow, urls)
            yield
        await self._store_limits()

    async def _store_limits(self) -> None:
        """Store the best limit of each endpoint for later runs."""
        found = [each for each in self.pool if each.is_identified]
        best = {each.identity: each.limiter.best for each in found}
        limits = {identity: limit for identity, limit in best.items() if limit is not None}
        if limits:
            await asyncio.to_thread(self._known_limits.keep, limits)

    async def unload(self) -> None:
        """Ask each endpoint to unload its model; a failure is reported and ends nothing."""
        for endpoint in [each for each in self.pool if each.proven and each.end is None]:
            try:
                await endpoint.backend.unload()
            except BackendError as error:
                tell(self._notify, f"{endpoint.place} has not unloaded the model: {error}")

    def most_rooms(self, *, may_grow: bool) -> int:
        """How many images can ever be on their way at once."""
        most = self.pool.most_rooms(most_concurrency(self._config))
        return max(most, WORKERS_TO_COME) if may_grow else most

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints that took part; empty if there was only one."""
        taking_part = [each for each in self.pool if each.is_identified or not each.leaving]
        return tuple(map(_identity, taking_part)) if len(taking_part) > 1 else ()

    async def _watch(self) -> None:
        """Poll the load of each endpoint, and lower its limit while our requests queue there."""
        while True:
            await self._sleep(WATCH_S)
            up = [each for each in self.pool if each.is_open]
            await asyncio.gather(*(self._bugs.survived(self._measure, each) for each in up))

    async def _measure(self, endpoint: PooledEndpoint) -> None:
        endpoint.load = load = await endpoint.backend.load()
        if load is not None:
            endpoint.limiter.queueing(load.waiting)
            self._notify(QueueMeasured(endpoint=endpoint.place, running=load.running, waiting=load.waiting))

    async def _follow(self, urls: EndpointUrls) -> None:
        while True:
            await self._sleep(FOLLOW_S)
            if await asyncio.to_thread(urls.has_changed):
                try:
                    await self._change(frozenset(await asyncio.to_thread(urls.read)))
                except VlmbatchError as error:
                    tell(self._notify, f"{error}; the endpoints stay as they are")

    async def _change(self, urls: frozenset[str]) -> None:
        """Use the endpoints at these URLs and no others."""
        for url in [url for url in self._by_url if url not in urls]:
            endpoint = self._by_url.pop(url)
            self.pool.remove(endpoint)
            tell(self._notify, f"{endpoint.place} gets no more images: --base-url does not name it any more")
        for url in sorted(urls - self._by_url.keys()):
            preflight = await self._opener.open(spec_at(self._config, url))
            tell(self._notify, f"{preflight.place} gets images from now on: --base-url names it")
            self.add(preflight)


class EndpointBreaker(CircuitBreaker):
    """The circuit breaker of a pooled endpoint: proves it by warm-up and canary, and probes it."""

    def __init__(
        self,
        endpoint: PooledEndpoint,
        preflight: Preflight,
        supervisor: EndpointSupervisor,
        question: Request,
        notify: Observer,
        sleep: Sleep,
    ) -> None:
        """If the endpoint is down and its identity comes from the cache, it stays down."""
        config = preflight.spec.config
        self._known_away = None if preflight.endpoint is None else preflight.away
        patience_s = config.run.patience_s(RUN_PATIENCE_S)
        super().__init__(
            patience_s=patience_s if self._known_away is None else 0.0,
            try_s=2 * HINT_S + proof_s(config.run.timeout),
            least_try_s=config.run.timeout,
            notify=self._outage,
            sleep=sleep,
        )
        self._endpoint = endpoint
        self._preflight = preflight
        self._supervisor = supervisor
        self._generation = question.generation
        self._observer = notify
        self._tell = partial(tell, notify)
        self._slow = SlowNotice(preflight.backend, self._tell)
        self._cold_s = cold_s(config.run.timeout)
        self._has_canary = config.endpoint.canary
        self._canary = Canary(
            preflight.backend,
            question,
            deadline_s=self._cold_s,
            patience_s=min(self._cold_s, patience_s / 2),
            tell=self._tell,
        )
        self._ignored: set[str] = set()
        """The helper requests whose failure was reported."""

    async def prove(self) -> None:
        """Identify the endpoint if necessary, load its model, and ask its canary.

        A long warm-up goes on while the canary is asked, which waits for the model, too.
        """
        if self._known_away is not None:
            raise self._known_away
        if not self._endpoint.is_identified:
            identity = await identify(
                self._preflight.backend,
                self._model_of_peers(),
                has_canary=self._has_canary,
                tell=self._tell,
            )
            self._supervisor.identified(self._endpoint, self._preflight, identity)
        try:
            async with self._endpoint.proofs.request(), asyncio.TaskGroup() as group:
                loading = group.create_task(self._warm_up())
                await asyncio.wait((loading,), timeout=HINT_S if self._has_canary else None)
                if self._has_canary:
                    proof = self._canary.prove(denied=self._endpoint.identity.sees is False)
                    await self._slow.proving(proof)
                loading.cancel()
        except BaseExceptionGroup as error:
            raise first(error) from error
        self._observer(EndpointProven())

    async def _warm_up(self) -> None:
        """Load the model; a failure is ignored, and the first question loads it then.

        Raises UnreachableError if no connection can be opened.
        """
        try:
            warm_up = self._preflight.backend.warm_up(self._generation, self._cold_s)
            took_s = await self._slow.loading(warm_up)
        except UnreachableError:
            raise
        except BackendError as error:
            self._ignore("warm-up", error, "the first question loads the model")
            return
        if took_s > SLOW_LOAD_S:
            self._tell(f"{self._endpoint.identity.model} was loaded in {took_s:.0f} s")

    async def probe(self) -> None:
        """Ask the canary if it was ever answered; otherwise the next images decide, if a server listens.

        Images that are refused as busy lose no attempt, but images that fail do: if the endpoint has never
        answered any, it must pass its health probe, or answer the canary now.
        """
        async with self._endpoint.proofs.request():
            await self._probe()

    async def _probe(self) -> None:
        if self._canary.was_answered:
            await self._canary.ask()
            return
        try:
            async with asyncio.timeout(HINT_S):
                await self._preflight.backend.probe()
        except UnreachableError:
            raise
        except (BackendError, TimeoutError) as error:
            is_unavailable = self.away is not None and self.away.kind in ("busy", "down")
            if is_unavailable or self._endpoint.answers:
                self._ignore("health probe", error, "the next images show whether the endpoint is well")
            elif self._has_canary:
                await self._canary.ask()
            else:
                raise

    def _ignore(self, name: str, error: Exception, instead: str) -> None:
        """Report once that this helper request failed and does not count."""
        if name not in self._ignored:
            self._ignored.add(name)
            reason = str(error) or f"no reply within {HINT_S:g} s"
            self._tell(f"the {name} of {self._endpoint.place} failed and is ignored: {reason}; {instead}")

    def restarted(self) -> None:
        """Drop the requests to the old server: it is gone and does not reply to them any more."""
        dropped = self._endpoint.in_flight.drop()
        if dropped:
            self._tell(
                f"{self._endpoint.place} was restarted; requests without a reply from the old server are "
                f"sent again: {dropped}"
            )

    async def failed(self, error: BackendError, cause: str) -> None:
        """See CircuitBreaker; the first timeout is reported with what may have delayed the request."""
        if error.kind == "timeout":
            self._supervisor.pool.in_background(self._slow.timed_out)
        await super().failed(error, cause)

    def _outage(self, event: Event) -> None:
        """Pass on an event, with the endpoint's name and whether others are up."""
        if isinstance(event, EndpointPaused | EndpointResumed):
            pool, endpoint = self._supervisor.pool, self._endpoint
            event = replace(event, endpoint=endpoint.place, others_up=pool.has_others(endpoint))
            self._observer(event)
            pool.changed()
        else:
            self._observer(event)

    def _model_of_peers(self) -> str | None:
        """The model of the endpoints that share the images with this one, which it must have, too."""
        peers = (each for each in self._supervisor.pool if each.rank == self._endpoint.rank)
        return next((each.identity.model for each in peers if each.is_identified), None)


def most_concurrency(config: RunConfig) -> int:
    """How many requests at once one endpoint may get."""
    files = system.most_files() - OTHER_FILES
    return config.run.concurrency or max(1, min(MOST_CONCURRENCY, files))


def _identity(endpoint: PooledEndpoint) -> Endpoint:
    if endpoint.is_identified:
        return endpoint.identity
    return Endpoint(backend=endpoint.backend.name, url=endpoint.place, model="")
