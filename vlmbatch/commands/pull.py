"""Pulls models: waits for Ollama, requests each model, and retries after temporary failures."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from vlmbatch.backends.ollama.pull import OTHERS_LOAD, Pulled, not_ollama
from vlmbatch.backends.registry import open_ollama
from vlmbatch.commands.models import each_endpoint
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.circuit_breaker import RUN_PATIENCE_S, START_PATIENCE_S, until_available
from vlmbatch.errors import (
    BackendError,
    ConfigError,
    FatalBackendError,
    TransientError,
    UnavailableError,
)
from vlmbatch.observers.format import duration
from vlmbatch.pipeline.retry import RetryPolicy
from vlmbatch.protocols import Sleep

if TYPE_CHECKING:
    from vlmbatch.backends.ollama.backend import OllamaBackend

STALLED_S = 30.0
"""A pull without a new byte for this long is reported as stalled; Ollama itself then retries the part."""
LOCAL_WORK = ("verif", "writ", "remov", "success")
"""How Ollama's status begins for work without the network."""
PRESENT = "already present"
CHECKING = 3
"""Ollama may be silent for this many times --timeout: it sends nothing while it verifies a download."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The progress of a pull: `completed` of `total` bytes are present, and this pull fetched `fetched`."""

    model: str
    place: str
    status: str
    completed: int
    total: int
    fetched: int
    done: bool = False

    @classmethod
    def present(cls, model: str, place: str) -> Self:
        """The only step of a model that is present."""
        return cls(model=model, place=place, status=PRESENT, completed=0, total=0, fetched=0, done=True)


@dataclass(kw_only=True)
class Puller:
    """Pulls models; `on_step` receives each step, and `on_message` messages for the user.

    `wait`: at the start wait for Ollama as long as during an outage later.
    """

    config: RunConfig
    wait: bool
    on_step: Callable[[Step], None]
    on_message: Callable[[str], None]
    sleep: Sleep = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    stalled_s: float = STALLED_S

    async def pull(self, models: Sequence[str]) -> None:
        """Pull all models at each endpoint, one after the other; a model that is present takes a moment.

        With `wait`, a model that is present is not pulled, so no network is needed for it.

        Raises:
            ConfigError: the options name another backend.
            FatalBackendError: there is no such model, or the server is not Ollama.
            UnavailableError: Ollama is down, or a pull broke off too often.
        """
        if self.config.endpoint.backend not in ("auto", "ollama"):
            raise ConfigError(
                f"only Ollama can pull models, not --backend {self.config.endpoint.backend}: {OTHERS_LOAD}; "
                "leave --backend out, or set --backend ollama"
            )
        for config in each_endpoint(self.config):
            async with open_ollama(config) as ollama:
                for model in models:
                    if await self._has(ollama, model, self._patience_s) and self.wait:
                        self.on_step(Step.present(model, ollama.place))
                    else:
                        await self._pull_one(ollama, model)

    @property
    def _patience_s(self) -> float:
        return self.config.run.patience_s(RUN_PATIENCE_S if self.wait else START_PATIENCE_S)

    async def _has(self, ollama: "OllamaBackend", model: str, patience_s: float) -> bool:
        """Wait until Ollama is up; returns whether it lists the model."""
        reported = False

        def report(error: UnavailableError, left_s: float) -> None:
            nonlocal reported
            if not reported:
                self.on_message(f"waiting for up to {duration(left_s)}: {error}")
            reported = True

        try:
            return await until_available(
                partial(ollama.has, model),
                patience_s=patience_s,
                loading_patience_s=self.config.run.patience_s(RUN_PATIENCE_S),
                name=ollama.place,
                on_away=report,
                sleep=self.sleep,
                clock=self.clock,
            )
        except FatalBackendError as error:
            if error.kind == "wrong_url":
                raise not_ollama(ollama.place) from error
            raise

    async def _pull_one(self, ollama: "OllamaBackend", model: str) -> None:
        """Pull one model with retries; an attempt that fetched new bytes does not count as a retry."""
        one = _ModelPull(self, ollama, model)

        def on_retry(attempt: int, delay_s: float, error: BackendError) -> None:
            self.on_message(f"{error}; retry in {delay_s:.0f} s, which resumes the download")

        async def attempt() -> None:
            if one.broken:
                await self._has(ollama, model, self.config.run.patience_s(RUN_PATIENCE_S))
            await one.attempt()

        policy = RetryPolicy(retries=self.config.run.retries, sleep=self.sleep)
        try:
            await policy.run(attempt, on_retry, lambda: one.refunds)
        except TransientError as error:
            raise UnavailableError(
                f"the download of {model} is incomplete: {error}; run the same command again: Ollama resumes "
                "the download"
            ) from error


class _ModelPull:
    """The pull of one model, over several attempts."""

    def __init__(self, puller: Puller, ollama: "OllamaBackend", model: str) -> None:
        self._puller = puller
        self._ollama = ollama
        self._model = model
        self._fetched_before = 0
        self._last = Pulled(status="")
        self._moved_at = 0.0
        self._furthest = 0
        self.refunds = 0
        self.broken = False

    async def attempt(self) -> None:
        """Pull the model until it is complete or the pull breaks off."""
        self._moved_at, began_with = self._puller.clock(), self._furthest
        self._fetched_before += self._last.fetched
        self._last = Pulled(status="")
        timeout_s = self._puller.config.run.timeout
        watching = asyncio.ensure_future(self._watch(timeout_s))
        pulling = asyncio.ensure_future(
            self._ollama.pull(self._model, self._receive, silence_s=CHECKING * timeout_s)
        )
        try:
            await asyncio.wait((watching, pulling), return_when=asyncio.FIRST_COMPLETED)
            await (pulling if pulling.done() else watching)
        except UnavailableError as error:  # Ollama was up before this attempt
            raise TransientError(str(error), kind="connection") from error
        finally:
            self.broken = True
            self.refunds += self._furthest > began_with
            for task in (watching, pulling):
                task.cancel()
                with suppress(asyncio.CancelledError, BackendError):
                    await task
        self._send_step(self._last, done=True)

    def _receive(self, now: Pulled) -> None:
        if (now.completed, now.status) != (self._last.completed, self._last.status):
            self._moved_at = self._puller.clock()
        self._furthest = max(self._furthest, now.completed)
        self._last = now
        self._send_step(now)

    def _send_step(self, now: Pulled, *, done: bool = False) -> None:
        self._puller.on_step(
            Step(
                model=self._model,
                place=self._ollama.place,
                status=now.status,
                completed=now.completed,
                total=now.total,
                fetched=self._fetched_before + now.fetched,
                done=done,
            )
        )

    async def _watch(self, timeout_s: float) -> None:
        """Report a stall, and end a long one; bytes may pause while Ollama verifies a download."""
        reported = False
        while True:
            await asyncio.sleep(min(self._puller.stalled_s, timeout_s) / 4)
            still_s = self._puller.clock() - self._moved_at
            if self._last.status.startswith(LOCAL_WORK):
                continue
            if still_s >= timeout_s:
                raise TransientError(f"no data of {self._model} arrived for {timeout_s:g} s", kind="timeout")
            if still_s >= self._puller.stalled_s and not reported:
                self._puller.on_message(
                    f"no data of {self._model} arrived for {still_s:.0f} s; check the network of "
                    f"{self._ollama.place}. Ctrl-C loses nothing: the same command resumes the download"
                )
            reported = still_s >= self._puller.stalled_s
