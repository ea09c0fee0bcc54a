"""Measures an endpoint under load: its throughput and the latency of its answers at several levels.

It prints nothing; Bench keeps its results in a report, also if it is cancelled.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from vlmbatch.backends.confirm import cold_s
from vlmbatch.backends.registry import open_backend
from vlmbatch.commands.bench.client import measured_client
from vlmbatch.commands.bench.loops import closed_loop, open_loop
from vlmbatch.commands.bench.pictures import Pictures, pictures_of
from vlmbatch.commands.bench.plan import Plan
from vlmbatch.commands.bench.results import Level, Report, Tally, has_stopped_growing, level_of, load_name
from vlmbatch.commands.models import each_endpoint
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.canary import Canary, proof_s
from vlmbatch.endpoints.circuit_breaker import RUN_PATIENCE_S, START_PATIENCE_S, until_available
from vlmbatch.endpoints.discovery import EndpointSpec
from vlmbatch.endpoints.preflight import Preflight, Search
from vlmbatch.errors import (
    BackendError,
    ConfigError,
    FatalBackendError,
    StaleConnectionError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from vlmbatch.imaging.sizing import sizing_of
from vlmbatch.pipeline.fingerprint import request_of
from vlmbatch.prompts import prompt_text
from vlmbatch.prompts.schemas import schema_text
from vlmbatch.protocols import Backend, Observer
from vlmbatch.records import Completion, Endpoint, Request
from vlmbatch.sources.directory import check_exists

__all__ = ["Bench", "Level", "Plan", "Report"]

ANY_FLAW = frozenset(("length", "loop", "empty"))
"""A cut or empty answer takes time, too, so that it counts."""


@dataclass(kw_only=True)
class Bench:
    """A measurement of one endpoint. `images` is a path, or None for drawn pictures.

    `notify` receives the reasons while it waits for the endpoint. `report` has the results so far, `load` the
    load at this moment, None before the first, and `tally` its counts.
    """

    config: RunConfig
    plan: Plan
    images: str | None
    notify: Observer
    report: Report = field(init=False)
    load: float | None = None
    tally: Tally = field(default_factory=Tally)
    _backend: Backend = field(init=False, repr=False)
    _pictures: Pictures = field(init=False, repr=False)
    _question: Request = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.report = Report(is_open=self.plan.is_open, planned=len(self.plan.loads))

    async def measure(self) -> None:
        """Find the endpoint, prepare the pictures, and measure each level.

        It sends each request once: without retries, and without a limit that adapts to the endpoint.

        Raises:
            ConfigError: the options do not fit together, or an image or the prompt cannot be read.
            BackendError: the endpoint is down, refuses, or answered no request.
        """
        async with AsyncExitStack() as stack:
            config = await asyncio.to_thread(_single, self.config, self.images)
            self._backend = await stack.enter_async_context(open_backend(config))
            try:
                await self._prepare(config)
                await self._measure_all()
            except BackendError as error:
                error.args = (self._backend.masked(str(error)),)
                raise

    async def _prepare(self, config: RunConfig) -> None:
        """Find the endpoint as a run does, prepare the pictures, and ask about the first one."""
        prompt = await asyncio.to_thread(prompt_text, config.prompt)
        schema = await asyncio.to_thread(schema_text, config.generation.schema)
        self._question = replace(request_of(config, prompt, schema), accept=ANY_FLAW)
        search = Search(_unsearched(config, self._backend), self.notify, asyncio.sleep)
        found = await search.endpoint(
            config.run.patience_s(START_PATIENCE_S), config.run.patience_s(RUN_PATIENCE_S)
        )
        self.report.endpoint = replace(found, model=self._backend.masked(found.model))
        self.report.notes += [self._backend.masked(note) for note in found.notes]
        sizing = sizing_of(config.image, found.model, found.architecture)
        self._pictures = await asyncio.to_thread(pictures_of, self.images, config, sizing)
        if config.endpoint.canary:
            await self._prove(config, found)
        try:
            await self._ask(cold_s(config.run.timeout))
        except (FatalBackendError, UnreachableError):
            raise
        except BackendError:  # the levels count such failures
            return

    async def _prove(self, config: RunConfig, found: Endpoint) -> None:
        """Prove that pictures reach the model: without them, all answers would be too fast."""
        patience_s = config.run.patience_s(START_PATIENCE_S)
        canary = Canary(
            self._backend,
            self._question,
            deadline_s=cold_s(config.run.timeout),
            patience_s=patience_s / 2,
            tell=self.report.notes.append,
        )
        await until_available(
            partial(canary.prove, denied=found.sees is False),
            patience_s=patience_s,
            try_s=proof_s(config.run.timeout),
            least_try_s=config.run.timeout,
        )

    async def _measure_all(self) -> None:
        levels = self.report.levels
        try:
            for load in self.plan.loads:
                error = await self._measure(load)
                if not levels[-1].answered:
                    self._end_without_answer(error, load)
                    break
                if self.plan.stops_early and has_stopped_growing(levels):
                    break
        finally:
            self.report.notes += self._pictures.notes()

    def _end_without_answer(self, error: BackendError | None, load: float) -> None:
        """Note that a load was too high for any answer; raises a BackendError if it was the first one."""
        at = f"at {load_name(load, is_open=self.plan.is_open)}"
        if len(self.report.levels) > 1:
            self.report.notes.append(f"no request was answered {at}, so the measurement ended there")
            return
        text = f"no request was answered {at}: {error}; check the endpoint with: vlmbatch doctor"
        temporary = isinstance(error, (UnavailableError, TransientError))
        raise UnavailableError(text) if temporary else FatalBackendError(text)

    async def _measure(self, load: float) -> BackendError | None:
        """Measure one level; returns its first error. A level that is cancelled is partial."""
        self.load, self.tally = load, Tally()
        is_partial = True
        with measured_client() as client:
            try:
                if self.plan.is_open:
                    await open_loop(self._ask, self.tally, load, self.plan)
                else:
                    await closed_loop(self._ask, self.tally, int(load), self.plan)
                is_partial = False
            finally:
                error = self.tally.error
                level = replace(
                    level_of(self.tally, load, offered_s=self.plan.seconds if self.plan.is_open else None),
                    client_cpu=client.cpu,
                    client_late=client.late,
                    error=None if error is None else self._backend.masked(str(error)),
                    is_partial=is_partial,
                )
                if level.answered or not is_partial:
                    self.report.levels.append(level)
        return error

    async def _ask(self, deadline_s: float | None = None) -> Completion:
        """Send one request with the next picture.

        A connection that the server had closed before is no failure of the endpoint, which has not seen the
        request: it is sent again over another one.
        """
        question = replace(self._question, images=(self._pictures.take(),), deadline_s=deadline_s)
        while True:
            try:
                return await self._backend.complete(question)
            except StaleConnectionError:
                continue


def _single(config: RunConfig, images: str | None) -> RunConfig:
    """The options for the only endpoint; blocks.

    Raises:
        ConfigError: several endpoints are named, or the path of the images does not exist.
    """
    if images is not None:
        check_exists(images)
    found = each_endpoint(config)
    if len(found) > 1:
        raise ConfigError(
            f"vlmbatch bench measures one endpoint, and --base-url names {len(found)}; name one of them: "
            "vlmbatch bench URL"
        )
    return found[0]


def _unsearched(config: RunConfig, backend: Backend) -> Preflight:
    return Preflight(spec=EndpointSpec(rank=0, config=config), backend=backend)
