"""The checks of one endpoint; each stores its results for the checks after it."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from vlmbatch.backends.confirm import cold_s
from vlmbatch.backends.registry import catalogue_of, open_backend
from vlmbatch.commands.doctor.finding import Finding, wrong
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.canary import Canary, proof_s
from vlmbatch.endpoints.circuit_breaker import RUN_PATIENCE_S, START_PATIENCE_S, until_available
from vlmbatch.endpoints.discovery import EndpointSpec
from vlmbatch.endpoints.preflight import Preflight, Search
from vlmbatch.errors import BackendError, ConfigError, UnreachableError, VlmbatchError
from vlmbatch.imaging.sizing import sizing_of
from vlmbatch.imaging.tokens import family_of
from vlmbatch.pipeline.fingerprint import request_of
from vlmbatch.protocols import Backend, Observer
from vlmbatch.records import Endpoint, ModelFacts, Request

PHOTO = (4000, 3000)
PROMPT_TOKENS = 200
"""A usual upper bound of the tokens of a prompt and its chat template."""


@dataclass(kw_only=True)
class EndpointChecks:
    """The checks of one endpoint of this rank (see EndpointSpec), and the facts they have found so far.

    `notify` receives the reasons while the checks wait for the endpoint.
    """

    config: RunConfig
    prompt: str
    stack: AsyncExitStack
    notify: Observer
    rank: int = 0
    clock: Callable[[], float] = time.monotonic
    endpoint: Endpoint | None = None
    facts: ModelFacts | None = None
    trouble: BackendError | ConfigError | None = None
    _backend: Backend | None = field(default=None, repr=False)

    @property
    def backend(self) -> Backend:
        """The backend; available after `reachable`."""
        if self._backend is None:
            raise RuntimeError("used before the endpoint was reached")
        return self._backend

    @property
    def found(self) -> Endpoint:
        """The endpoint; available after `reachable`, unless the model has a problem."""
        if self.endpoint is None:
            raise RuntimeError("used before the endpoint was found")
        return self.endpoint

    @property
    def question(self) -> Request:
        """The request of a run, with its options: other options would make Ollama reload the model."""
        return request_of(self.config, self.prompt)

    @property
    def cold_s(self) -> float:
        """The time limit in seconds of a request that may have to load the model first."""
        return cold_s(self.config.run.timeout)

    def masked(self, finding: Finding) -> Finding:
        """The finding without the keys and passwords of the endpoint, which a server may repeat."""
        advice = finding.advice and self.shown(finding.advice)
        return replace(finding, told=self.shown(finding.told), advice=advice)

    def shown(self, text: str) -> str:
        """The text without the keys and passwords of the endpoint."""
        return text if self._backend is None else self._backend.masked(text)

    async def reachable(self) -> list[Finding]:
        """Check whether the endpoint answers; a problem of the model is stored for the next check."""
        run = self.config.run
        try:
            self._backend = await self.stack.enter_async_context(open_backend(self.config))
            each = Preflight(spec=EndpointSpec(rank=self.rank, config=self.config), backend=self._backend)
            self.endpoint = await Search(each, self.notify, asyncio.sleep).endpoint(
                run.patience_s(START_PATIENCE_S), run.patience_s(RUN_PATIENCE_S)
            )
        except ConfigError as error:
            if self._backend is None:
                return [wrong("reachable", error)]
            self.trouble = error
        except BackendError as error:
            if error.kind not in ("model_not_found", "no_vision"):
                return [wrong("reachable", error)]
            self.trouble = error
        except VlmbatchError as error:
            return [wrong("reachable", error)]
        if self.endpoint is None:
            return [Finding(check="reachable", mark="ok", told=f"{self.backend.place} answers")]
        await self._look_up()
        name = " ".join(filter(None, (self.endpoint.backend, self.endpoint.version)))
        reached = Finding(check="reachable", mark="ok", told=f"{name} at {self.endpoint.url}")
        return [reached, *map(_note, self.endpoint.notes)]

    async def _look_up(self) -> None:
        """Ask the server for the facts of the model; after a failure they stay unknown."""
        catalogue = catalogue_of(self.backend)
        if catalogue is None:
            return
        try:
            known = await catalogue.models()
        except BackendError:
            return
        names = (self.found.model, f"{self.found.model}:latest")
        alone = known[0] if len(known) == 1 else None
        self.facts = next((model for model in known if model.name in names), alone)

    async def model(self) -> list[Finding]:
        """Check whether the endpoint has the model, or which model is used."""
        if self.trouble is not None:
            return [wrong("model", self.trouble)]
        facts = self.facts
        more = (facts.parameters, facts.quantization) if facts is not None else ()
        return [Finding(check="model", mark="ok", told=", ".join(filter(None, (self.found.model, *more))))]

    async def sees(self) -> list[Finding]:
        """Check whether the endpoint reports vision for the model."""
        sees = self.found.sees if self.facts is None or self.facts.sees is None else self.facts.sees
        if sees is None:
            told = "the endpoint does not report it; the check below tests it"
            return [Finding(check="takes pictures", mark="skipped", told=told)]
        if not sees:
            told = "the endpoint reports no vision; the check below tests it"
            return [Finding(check="takes pictures", mark="warning", told=told)]
        return [Finding(check="takes pictures", mark="ok", told="the endpoint reports it")]

    async def loaded(self) -> list[Finding]:
        """Load the model if it is not loaded, and check whether it is on the GPU."""
        if self.facts is None or self.facts.loaded is None:
            return [Finding(check="loaded", mark="skipped", told="the endpoint does not report it")]
        told, figures = "loaded", dict[str, float]()
        if not self.facts.loaded:
            began = self.clock()
            try:
                await self._warm_up()
            except UnreachableError:
                raise
            except BackendError as error:  # a run goes on, too: its first question with a picture decides
                told = f"a question without a picture failed; the first picture loads the model: {error}"
                return [Finding(check="loaded", mark="skipped", told=told)]
            figures["load_s"] = round(self.clock() - began, 3)
            told = f"loaded in {figures['load_s']:.1f} s"
            await self._look_up()
        return [_where(self.facts, told, figures)]

    async def _warm_up(self) -> None:
        """Request one token without a picture, which loads the model with the options of a run."""
        one = replace(self.question.generation, max_tokens=1, thinking=False)
        await self.backend.complete(
            replace(
                self.question,
                prompt="Say yes.",
                generation=one,
                accept=frozenset(("length", "loop", "empty")),
                deadline_s=self.cold_s,
            )
        )

    async def really_sees(self) -> list[Finding]:
        """Check with the canary that pictures reach the model."""
        if not self.config.endpoint.canary:
            return [Finding(check="really sees", mark="skipped", told="--no-canary is set")]
        doubts: list[str] = []
        patience_s = self.config.run.patience_s(START_PATIENCE_S)
        canary = Canary(
            self.backend,
            self.question,
            deadline_s=self.cold_s,
            patience_s=patience_s / 2,
            tell=doubts.append,
        )
        await until_available(
            partial(canary.prove, denied=self.found.sees is False),
            patience_s=patience_s,
            try_s=proof_s(self.config.run.timeout),
            least_try_s=self.config.run.timeout,
        )
        if doubts:
            advice = "check that the answer below describes the picture"
            return [Finding(check="really sees", mark="warning", told=doubts[0], advice=advice)]
        told = "pictures reach the model (tested with a picture of one colour)"
        return [Finding(check="really sees", mark="ok", told=told)]

    async def context(self) -> list[Finding]:
        """Check whether a photo, a prompt and an answer fit into the model's context."""
        found, options = self.found, self.config.generation
        room = options.num_ctx or (self.facts and self.facts.loaded_context) or found.context
        family = family_of(found.model, found.architecture) or family_of(found.architecture or "")
        if not room or family is None:
            unknown = "the context length" if family else f"the tokens per picture of {found.model}"
            return [Finding(check="context", mark="skipped", told=f"unknown: {unknown}")]
        size = sizing_of(self.config.image, found.model, found.architecture)(PHOTO)
        photo = family.tokens(size)
        need = photo + PROMPT_TOKENS + options.max_tokens
        told = (
            f"room for {room} tokens; a photo takes {photo} at {size[0]}x{size[1]}, "
            f"and up to {need} with prompt and answer"
        )
        figures = {"context": room, "photo_tokens": photo, "needed": need}
        if need <= room:
            return [Finding(check="context", mark="ok", told=told, figures=figures)]
        larger = {"ollama": f"--num-ctx {need}", "vllm": f"vllm serve --max-model-len {need}"}
        advice = " or ".join(filter(None, (larger.get(found.backend), "a smaller --max-size")))
        return [Finding(check="context", mark="warning", told=told, advice=advice, figures=figures)]

    async def parallel(self) -> list[Finding]:
        """Check how many requests the endpoint processes at once, if that is known."""
        slots, advice = self.found.slots, None
        if slots:
            told = f"processes {slots} requests at once"
        elif self.found.backend == "ollama":
            told = "Ollama processes one request at a time by default"
            advice = (
                "for more, start Ollama with OLLAMA_NUM_PARALLEL=4; each request needs memory for "
                "its own context"
            )
        else:
            told = "not reported; a run finds the best number itself (--concurrency auto)"
        return [Finding(check="at once", mark="ok", told=told, advice=advice)]


def _note(note: str) -> Finding:
    told, _, advice = note.partition("; ")
    return Finding(check="note", mark="warning", told=told, advice=advice or None)


def _where(facts: ModelFacts | None, told: str, figures: dict[str, float]) -> Finding:
    """The finding about the memory of the loaded model; on the CPU it is many times slower."""
    share = None if facts is None else facts.on_gpu
    if share is None:
        return Finding(check="loaded", mark="ok", told=told, figures=figures)
    figures["on_gpu"] = round(share, 3)
    if share >= 1:
        return Finding(check="loaded", mark="ok", told=f"{told}, all of it on the GPU", figures=figures)
    part = f"only {share:.0%} of it on the GPU" if share else "all of it on the CPU"
    return Finding(
        check="loaded",
        mark="warning",
        told=f"{told}, {part}, which is slow",
        advice="a smaller model or quantisation, or a smaller --num-ctx, may fit into the GPU's memory; "
        "Ollama's log shows the GPU memory it found",
        figures=figures,
    )
