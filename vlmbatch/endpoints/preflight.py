"""Finds out at the start of a run who answers: all endpoints that the options name are asked at once."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from vlmbatch.aio import first
from vlmbatch.backends.registry import open_backend
from vlmbatch.cache import Cache
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.circuit_breaker import RUN_PATIENCE_S, START_PATIENCE_S, until_available
from vlmbatch.endpoints.discovery import EndpointSpec
from vlmbatch.errors import ConfigError, FatalBackendError, UnavailableError, UnreachableError
from vlmbatch.protocols import Backend, Sleep
from vlmbatch.records import Endpoint

STRAGGLERS_S = 1.0
"""How long a run that could begin waits for the answers of other endpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """An endpoint that was looked for: who it is, or why it is `away`.

    Where both are known, its answers are in the cache, and that is all there is.
    """

    plan: EndpointSpec
    backend: Backend
    endpoint: Endpoint | None = None
    away: UnavailableError | None = None

    @property
    def place(self) -> str:
        """Where it is, for people to read."""
        return self.endpoint.url if self.endpoint is not None else self.backend.place


async def preflight_all(
    config: RunConfig,
    plans: Sequence[EndpointSpec],
    metered: Callable[[Backend], Backend],
    cache: Cache | None,
    sleep: Sleep,
    stack: AsyncExitStack,
) -> list[Preflight]:
    """Open all and ask who they are; at least one answers. What has to be closed goes on the stack.

    Raises:
        UnavailableError: nobody is there whom to ask.
        VlmbatchError: one that is there refuses, or the options do not fit together.
    """
    opened = [await opened_by(plan, metered, stack) for plan in plans]
    if len(opened) == 1:
        return [await _alone(opened[0], cache, sleep)]
    met = await _all(opened, config, config.run.patience_s(START_PATIENCE_S), sleep)
    if all(each.endpoint is None for each in met):  # some may be loading
        met = await _all(met, config, config.run.patience_s(RUN_PATIENCE_S), sleep)
    present = [each for each in met if each.endpoint is not None]
    if not present:
        raise UnavailableError("; ".join(str(each.away) for each in met))
    _require_one_model([each for each in met if each.plan.rank == 0])
    return met


async def opened_by(
    plan: EndpointSpec, metered: Callable[[Backend], Backend], stack: AsyncExitStack
) -> Preflight:
    """An endpoint that was not looked for yet; `metered` counts what it costs.

    Raises:
        VlmbatchError: it cannot be opened with these options.
    """
    backend = metered(open_backend(plan.config, deployment=plan.deployment))
    return Preflight(plan=plan, backend=await stack.enter_async_context(backend))


def named(met: Sequence[Preflight]) -> Endpoint:
    """The endpoint whose model names the run: the first that was to be asked.

    Raises:
        UnavailableError: it is away, and no option tells its model.
    """
    firsts = [each for each in met if each.plan.rank == 0]
    known = next((each.endpoint for each in firsts if each.endpoint is not None), None)
    if known is not None:
        return known
    options = firsts[0].plan.config.endpoint
    if options.model is None:
        told = "name its model with --model, so that a fallback can answer meanwhile"
        raise UnavailableError(f"{firsts[0].away}; {told}") from firsts[0].away
    return Endpoint(backend=firsts[0].backend.name, url=firsts[0].backend.place, model=options.model)


async def who_is_there(each: Preflight, model: str | None = None) -> Endpoint:
    """Ask once who it is; `model` is the one that it has to have.

    Raises:
        BackendError: it is away, or of no use.
    """
    endpoint = await each.backend.preflight()
    if model is not None and endpoint.model != model:
        raise FatalBackendError(
            f"{endpoint.url} has the model {endpoint.model}, and the others {model}; name one with --model",
            kind="model_not_found",
        )
    return endpoint


async def _alone(each: Preflight, cache: Cache | None, sleep: Sleep) -> Preflight:
    """Look for the only one; where nobody is there, who was when the cache was filled can still answer."""
    options, run = each.plan.config.endpoint, each.plan.config.run
    asked = (options.backend, each.backend.place, options.model or "")
    try:
        endpoint = await until_available(
            each.backend.preflight,
            patience_s=run.patience_s(START_PATIENCE_S),
            loading_patience_s=run.patience_s(RUN_PATIENCE_S),
            who=each.backend.place,
            sleep=sleep,
        )
    except UnreachableError as error:
        if cache is None or options.backend == "auto":  # which may find another one each time
            raise
        known = await asyncio.to_thread(cache.endpoint, *asked)
        if known is None:
            raise
        return replace(each, endpoint=known, away=error)
    if cache is not None:
        await asyncio.to_thread(cache.keep_endpoint, endpoint, *asked)
    return replace(each, endpoint=endpoint)


async def _all(
    opened: Sequence[Preflight], config: RunConfig, patience_s: float, sleep: Sleep
) -> list[Preflight]:
    """Look for all at once, until each has answered or patience has ended.

    Once one of the first rank is there, the others have a moment left: who comes later joins then.
    """
    usual_s = config.run.patience_s(START_PATIENCE_S)

    async def look(each: Preflight) -> Preflight:
        try:
            endpoint = await until_available(
                each.backend.preflight,
                patience_s=usual_s,
                loading_patience_s=patience_s,
                who=each.backend.place,
                sleep=sleep,
            )
        except UnavailableError as error:
            return replace(each, away=error)
        return replace(each, endpoint=endpoint)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(look(each)) for each in opened]
            firsts = {task for task, each in zip(tasks, opened, strict=True) if each.plan.rank == 0}
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


def _require_one_model(met: Sequence[Preflight]) -> None:
    """Raise ConfigError where endpoints that share the images found models of different names."""
    found = {each.endpoint.model: each.endpoint.url for each in met if each.endpoint is not None}
    if len(found) > 1 and met[0].plan.config.endpoint.model is None:
        told = ", ".join(f"{model} at {url}" for model, url in found.items())
        raise ConfigError(f"the endpoints have different models: {told}; name one with --model")
