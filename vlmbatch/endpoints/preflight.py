"""Finds out which endpoints are up, and which model each has, before the first image."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial

from vlmbatch.aio import first
from vlmbatch.backends.confirm import cold_s
from vlmbatch.backends.registry import open_backend
from vlmbatch.cache import Cache
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.circuit_breaker import (
    PREFLIGHT_S,
    RUN_PATIENCE_S,
    START_PATIENCE_S,
    until_available,
)
from vlmbatch.endpoints.cost import Budget, MeteredBackend, Prices
from vlmbatch.endpoints.discovery import EndpointSpec
from vlmbatch.endpoints.refusal_check import RefusalCheck
from vlmbatch.errors import ConfigError, FatalBackendError, UnavailableError, UnreachableError
from vlmbatch.events import PreflightDelayed
from vlmbatch.protocols import Backend, Observer, Sleep, Tell, quiet
from vlmbatch.records import Endpoint

STRAGGLERS_S = 1.0
"""Once a run could begin, it waits this long for the preflight of the other endpoints."""
LEAST_TRY_S = 1.0
"""A session that does not wait gives each endpoint this long, in seconds."""


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
    """Opens backends whose completions are counted in `budget`; `stack` closes them; `bugs` reports bugs."""

    def __init__(
        self,
        budget: Budget,
        prices: Prices | None,
        stack: AsyncExitStack,
        bugs: Bugs,
        *,
        check: type[RefusalCheck] = RefusalCheck,
    ) -> None:
        """`check` judges the refusals of each endpoint."""
        self._budget = budget
        self._prices = prices
        self._stack = stack
        self._bugs = bugs
        self._check = check

    async def open(self, spec: EndpointSpec) -> Preflight:
        """An endpoint that had no preflight yet.

        Raises:
            VlmbatchError: it cannot be opened with these options.
        """
        backend = open_backend(spec.config, deployment=spec.deployment)
        metered = MeteredBackend(backend, self._budget, self._prices)
        checked = self._check(metered, spec.config, self._bugs)
        return Preflight(spec=spec, backend=await self._stack.enter_async_context(checked))


async def preflight_all(
    config: RunConfig,
    specs: Sequence[EndpointSpec],
    opener: EndpointOpener,
    cache: Cache | None,
    notify: Observer,
    sleep: Sleep,
    *,
    wait: bool = True,
) -> list[Preflight]:
    """Open all endpoints and run their preflights at once. With `wait`, one is up or known from the cache.

    `notify` receives the reasons of delays.

    Raises:
        UnavailableError: all endpoints are down.
        VlmbatchError: an endpoint refuses, or the options do not fit together.
    """
    opened = [await opener.open(spec) for spec in specs]
    if wait and len(opened) == 1:
        return [await _single(opened[0], cache, notify, sleep)]
    start_s, loading_s = config.run.patience_s(START_PATIENCE_S), config.run.patience_s(RUN_PATIENCE_S)
    if not wait:
        found = await _all([Search(each, notify, sleep) for each in opened], 0.0, least_try_s=LEAST_TRY_S)
    else:
        found = await _all([Search(each, notify, sleep) for each in opened], start_s)
        if all(each.endpoint is None for each in found):  # some may be loading
            found = await _all([Search(each, notify, sleep) for each in found], start_s, loading_s)
        if all(each.endpoint is None for each in found):
            raise UnavailableError(_all_away([str(each.away) for each in found]))
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


async def identify(
    backend: Backend, model: str | None = None, *, has_canary: bool = True, tell: Tell = quiet
) -> Endpoint:
    """Send one preflight; `model` is the model that the endpoint must have.

    Without a canary, a model whose endpoint reports that it cannot see images is refused.

    Raises:
        BackendError: the endpoint is down, or cannot be used.
    """
    try:
        endpoint = await look(backend, has_canary=has_canary, tell=tell)
    except ConfigError as error:  # several models and no --model, or no price for the model
        raise FatalBackendError(str(error)) from error
    if model is not None and endpoint.model != model:
        raise FatalBackendError(
            f"{endpoint.url} has the model {endpoint.model}, but another endpoint has {model}; "
            "name one with --model",
            kind="model_not_found",
        )
    return endpoint


async def look(backend: Backend, *, has_canary: bool, tell: Tell) -> Endpoint:
    """Send one preflight; raises its errors, and FatalBackendError for a blind model without a canary."""
    endpoint = await backend.preflight(tell)
    if endpoint.sees is False and not has_canary:
        pull = ", or get one with: vlmbatch pull qwen2.5vl" if endpoint.backend == "ollama" else ""
        raise FatalBackendError(
            f"{endpoint.url} reports that {endpoint.model} cannot see images; choose a vision model with "
            f"--model{pull}, or leave out --no-canary, so that a test picture decides",
            kind="no_vision",
        )
    return endpoint


class Search:
    """The search for one endpoint: preflights until one succeeds; observers receive the reasons of delays."""

    def __init__(self, found: Preflight, notify: Observer, sleep: Sleep) -> None:
        self.found = found
        self._notify = notify
        self._sleep = sleep
        self._reason: UnavailableError | None = None

    async def endpoint(
        self, patience_s: float, loading_patience_s: float, *, least_try_s: float = PREFLIGHT_S
    ) -> Endpoint:
        """The endpoint, once a preflight has succeeded; see `until_available` for the seconds.

        Raises:
            UnavailableError: the last one, when the patience is used up.
            FatalBackendError: the endpoint is up and refuses the run.
            ConfigError: the options do not fit its models.
        """
        config, backend = self.found.spec.config, self.found.backend
        try:
            return await until_available(
                partial(look, backend, has_canary=config.endpoint.canary, tell=self._asks),
                patience_s=patience_s,
                loading_patience_s=loading_patience_s,
                try_s=PREFLIGHT_S + cold_s(config.run.timeout),
                least_try_s=least_try_s,
                name=backend.place,
                on_away=self._failed,
                sleep=self._sleep,
            )
        except (FatalBackendError, ConfigError) as error:
            if self.found.spec.rank > 0:
                error.args = (_for_fallback(str(error), backend.place),)
            raise

    async def result(
        self, patience_s: float, loading_patience_s: float, *, least_try_s: float = PREFLIGHT_S
    ) -> Preflight:
        """The endpoint, or why it is away; raises the other errors of `endpoint`."""
        try:
            endpoint = await self.endpoint(patience_s, loading_patience_s, least_try_s=least_try_s)
        except UnavailableError as error:
            return replace(self.found, away=error)
        return replace(self.found, endpoint=endpoint, away=None)

    @property
    def unfinished(self) -> Preflight:
        """The result of a search that was ended early: the last reason of its delay."""
        late = UnavailableError(f"{self.found.backend.place} did not answer in time; check that it runs")
        return replace(self.found, away=self._reason or late)

    def _failed(self, error: UnavailableError, left_s: float) -> None:
        self._reason = error
        self._delayed(str(error), left_s)

    def _asks(self, reason: str) -> None:
        """A preflight begins to ask a question; the error of an earlier one says more."""
        if self._reason is None:
            self._delayed(reason)

    def _delayed(self, reason: str, left_s: float = 0.0) -> None:
        self._notify(PreflightDelayed(endpoint=self.found.backend.place, message=reason, left_s=left_s))


async def _single(each: Preflight, cache: Cache | None, notify: Observer, sleep: Sleep) -> Preflight:
    """Search the single endpoint; if it is down, fall back to the model remembered in the cache."""
    options, run = each.spec.config.endpoint, each.spec.config.run
    asked = (options.backend, each.backend.place, options.model or "")
    try:
        endpoint = await Search(each, notify, sleep).endpoint(
            run.patience_s(START_PATIENCE_S), run.patience_s(RUN_PATIENCE_S)
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
    searches: Sequence[Search],
    patience_s: float,
    loading_patience_s: float | None = None,
    *,
    least_try_s: float = PREFLIGHT_S,
) -> list[Preflight]:
    """Send all preflights at once, until each has succeeded or its patience has ended.

    Once an endpoint of rank 0 is up, the others have STRAGGLERS_S left; a later one joins the pool later.
    """
    loading_s = patience_s if loading_patience_s is None else loading_patience_s
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(search.result(patience_s, loading_s, least_try_s=least_try_s))
                for search in searches
            ]
            firsts = {task for task, each in zip(tasks, searches, strict=True) if each.found.spec.rank == 0}
            while firsts:
                done, firsts = await asyncio.wait(firsts, return_when=asyncio.FIRST_COMPLETED)
                if any(task.result().endpoint for task in done):
                    break
            await asyncio.wait(tasks, timeout=STRAGGLERS_S)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as group_error:
        raise first(group_error) from group_error
    return [
        each.unfinished if task.cancelled() else task.result()
        for each, task in zip(searches, tasks, strict=True)
    ]


def _all_away(messages: Sequence[str]) -> str:
    """The message that no endpoint is up: the reason of each, then each advice once."""
    told, _, advice = zip(*(message.partition("; ") for message in messages), strict=True)
    advices = "; ".join(filter(None, dict.fromkeys(advice)))
    return f"none of the {len(messages)} endpoints is up: {', '.join(told)}{'; ' if advices else ''}{advices}"


def _for_fallback(text: str, place: str) -> str:
    """The message about a fallback, which gets its model and URL from --fallback and not from other flags."""
    for name in ("--model", "--base-url", "--backend"):
        text = text.replace(f" {name}", " --fallback")
    return f"the fallback {place}: {text}"


def _require_one_model(found: Sequence[Preflight]) -> None:
    """Raise ConfigError if endpoints that share the images have models of different names."""
    models = {each.endpoint.model: each.endpoint.url for each in found if each.endpoint is not None}
    if len(models) > 1 and found[0].spec.config.endpoint.model is None:
        told = ", ".join(f"{model} at {url}" for model, url in models.items())
        raise ConfigError(f"the endpoints have different models: {told}; name one with --model")
