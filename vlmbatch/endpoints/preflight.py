"""Finds out which endpoints are up, and which model each has, before the first image."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from vlmbatch.aio import first
from vlmbatch.backends.registry import open_backend
from vlmbatch.cache import Cache
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.circuit_breaker import RUN_PATIENCE_S, START_PATIENCE_S, until_available
from vlmbatch.endpoints.cost import Budget, MeteredBackend, Prices
from vlmbatch.endpoints.discovery import EndpointSpec
from vlmbatch.endpoints.second_opinion import SecondOpinion
from vlmbatch.errors import ConfigError, FatalBackendError, UnavailableError, UnreachableError
from vlmbatch.protocols import Backend, Sleep
from vlmbatch.records import Endpoint

STRAGGLERS_S = 1.0
"""Once a run could begin, it waits this long for the preflight of the other endpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The result of one endpoint's preflight: its identity (`endpoint`), or why it is `away`.

    Both are set if the endpoint is down and its identity comes from the cache; then only cached answers are
    available.
    """

    spec: EndpointSpec
    backend: Backend
    endpoint: Endpoint | None = None
    away: UnavailableError | None = None

    @property
    def place(self) -> str:
        """The endpoint's URL, for messages."""
        return self.endpoint.url if self.endpoint is not None else self.backend.place


class EndpointOpener:
    """Opens backends whose completions are counted in `budget`; `stack` closes them."""

    def __init__(self, budget: Budget, prices: Prices | None, stack: AsyncExitStack) -> None:
        self._budget = budget
        self._prices = prices
        self._stack = stack

    async def open(self, spec: EndpointSpec) -> Preflight:
        """An endpoint that had no preflight yet.

        Raises:
            VlmbatchError: it cannot be opened with these options.
        """
        backend = open_backend(spec.config, deployment=spec.deployment)
        metered = MeteredBackend(backend, self._budget, self._prices)
        careful = SecondOpinion(metered, spec.config)
        return Preflight(spec=spec, backend=await self._stack.enter_async_context(careful))


async def preflight_all(
    config: RunConfig,
    specs: Sequence[EndpointSpec],
    opener: EndpointOpener,
    cache: Cache | None,
    sleep: Sleep,
    *,
    wait: bool = True,
) -> list[Preflight]:
    """Open all endpoints and run their preflights at once. With `wait`, one is up or known from the cache.

    Raises:
        UnavailableError: all endpoints are down.
        VlmbatchError: an endpoint refuses, or the options do not fit together.
    """
    opened = [await opener.open(spec) for spec in specs]
    if not wait:
        found = await _all(opened, config, 0.0, sleep, patience_s=0.0)
    elif len(opened) == 1:
        return [await _single(opened[0], cache, sleep)]
    else:
        found = await _all(opened, config, config.run.patience_s(START_PATIENCE_S), sleep)
        if all(each.endpoint is None for each in found):  # some may be loading
            found = await _all(found, config, config.run.patience_s(RUN_PATIENCE_S), sleep)
        if all(each.endpoint is None for each in found):
            raise UnavailableError("; ".join(str(each.away) for each in found))
    _require_one_model([each for each in found if each.spec.rank == 0])
    return found


def naming_endpoint(found: Sequence[Preflight]) -> Endpoint:
    """The endpoint whose model names the run: the first of rank 0 that is up.

    Raises:
        UnavailableError: all of them are down, and no option names their model.
    """
    firsts = [each for each in found if each.spec.rank == 0]
    known = next((each.endpoint for each in firsts if each.endpoint is not None), None)
    if known is not None:
        return known
    options = firsts[0].spec.config.endpoint
    if options.model is None:
        told = "name its model with --model, so that a fallback can answer meanwhile"
        raise UnavailableError(f"{firsts[0].away}; {told}") from firsts[0].away
    return Endpoint(backend=firsts[0].backend.name, url=firsts[0].backend.place, model=options.model)


async def identify(backend: Backend, model: str | None = None) -> Endpoint:
    """Send one preflight; `model` is the model that the endpoint must have.

    Raises:
        BackendError: the endpoint is down, or cannot be used.
    """
    try:
        endpoint = await backend.preflight()
    except ConfigError as error:  # several models and no --model, or no price for the model
        raise FatalBackendError(str(error)) from error
    if model is not None and endpoint.model != model:
        raise FatalBackendError(
            f"{endpoint.url} has the model {endpoint.model}, but another endpoint has {model}; "
            "name one with --model",
            kind="model_not_found",
        )
    return endpoint


async def _single(each: Preflight, cache: Cache | None, sleep: Sleep) -> Preflight:
    """Probe the single endpoint; if it is down, fall back to the model remembered in the cache."""
    options, run = each.spec.config.endpoint, each.spec.config.run
    asked = (options.backend, each.backend.place, options.model or "")
    try:
        endpoint = await until_available(
            each.backend.preflight,
            patience_s=run.patience_s(START_PATIENCE_S),
            loading_patience_s=run.patience_s(RUN_PATIENCE_S),
            name=each.backend.place,
            sleep=sleep,
        )
    except UnreachableError as error:
        if cache is None or options.backend == "auto":  # auto may find another endpoint each time
            raise
        known = await asyncio.to_thread(cache.endpoint, *asked)
        if known is None:
            raise
        return replace(each, endpoint=known, away=error)
    if cache is not None:
        await asyncio.to_thread(cache.keep_endpoint, endpoint, *asked)
    return replace(each, endpoint=endpoint)


async def _all(
    opened: Sequence[Preflight],
    config: RunConfig,
    loading_patience_s: float,
    sleep: Sleep,
    *,
    patience_s: float | None = None,
) -> list[Preflight]:
    """Send all preflights at once, until each has answered or its patience has ended.

    Once an endpoint of rank 0 is up, the others have STRAGGLERS_S left; a later one joins the pool later.
    """
    usual_s = config.run.patience_s(START_PATIENCE_S) if patience_s is None else patience_s

    async def look(each: Preflight) -> Preflight:
        try:
            endpoint = await until_available(
                each.backend.preflight,
                patience_s=usual_s,
                loading_patience_s=loading_patience_s,
                name=each.backend.place,
                sleep=sleep,
            )
        except UnavailableError as error:
            return replace(each, away=error)
        return replace(each, endpoint=endpoint)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(look(each)) for each in opened]
            firsts = {task for task, each in zip(tasks, opened, strict=True) if each.spec.rank == 0}
            while firsts:
                done, firsts = await asyncio.wait(firsts, return_when=asyncio.FIRST_COMPLETED)
                if any(task.result().endpoint for task in done):
                    break
            await asyncio.wait(tasks, timeout=STRAGGLERS_S)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as group_error:
        raise first(group_error) from group_error
    late = UnavailableError("it did not answer in time")
    return [
        replace(each, away=late) if task.cancelled() else task.result()
        for each, task in zip(opened, tasks, strict=True)
    ]


def _require_one_model(found: Sequence[Preflight]) -> None:
    """Raise ConfigError if endpoints that share the images have models of different names."""
    models = {each.endpoint.model: each.endpoint.url for each in found if each.endpoint is not None}
    if len(models) > 1 and found[0].spec.config.endpoint.model is None:
        told = ", ".join(f"{model} at {url}" for model, url in models.items())
        raise ConfigError(f"the endpoints have different models: {told}; name one with --model")
