"""Has models pulled: waits for Ollama, asks it for each, and asks again where that breaks off in passing."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
"""Without a new byte for so long, a pull is said to stall; Ollama itself then asks for that part again."""
LOCAL_WORK = ("verif", "writ", "remov", "success")
"""How Ollama's words begin for what takes no network."""
CHECKING = 3
"""So many times --timeout may Ollama say nothing at all: it is silent while it checks what it has fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far the pull of a model is: bytes of what there is to have, how many were fetched just now."""

    model: str
    place: str
    status: str
    completed: int
    total: int
    fetched: int
    done: bool = False


@dataclass(kw_only=True)
class Puller:
    """How models are pulled; `on_step` hears each step, and `on_message` what a person should know.

    `wait` is whether to wait as long for Ollama at the start as it may stay away later.
    """

    config: RunConfig
    wait: bool
    on_step: Callable[[Step], None]
    on_message: Callable[[str], None]
    sleep: Sleep = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    stalled_s: float = STALLED_S

    async def pull(self, models: Sequence[str]) -> None:
        """Have all of them at each endpoint, one after the other; what is there already takes a moment.

        Raises:
            ConfigError: the options name another engine.
            FatalBackendError: no such model, or no Ollama.
            UnavailableError: Ollama is away, or a pull broke off again and again.
        """
        if self.config.endpoint.backend not in ("auto", "ollama"):
            raise ConfigError(
                f"only Ollama is told to pull, not --backend {self.config.endpoint.backend}: {OTHERS_LOAD}; "
                "leave --backend out, or say --backend ollama"
            )
        for config in each_endpoint(self.config):
            async with open_ollama(config) as ollama:
                await self._found(ollama, self._patience_s)
                for model in models:
                    await self._whole(ollama, model)

    @property
    def _patience_s(self) -> float:
        return self.config.run.patience_s(RUN_PATIENCE_S if self.wait else START_PATIENCE_S)

    async def _found(self, ollama: "OllamaBackend", patience_s: float) -> None:
        """Wait until Ollama is there."""
        told = False

        def tell(error: UnavailableError, left_s: float) -> None:
            nonlocal told
            if not told:
                self.on_message(f"waiting for up to {duration(left_s)}: {error}")
            told = True

        try:
            await until_available(
                ollama.version,
                patience_s=patience_s,
                loading_patience_s=self.config.run.patience_s(RUN_PATIENCE_S),
                who=ollama.place,
                on_away=tell,
                sleep=self.sleep,
                clock=self.clock,
            )
        except FatalBackendError as error:
            if error.kind == "wrong_url":
                raise not_ollama(ollama.place) from error
            raise

    async def _whole(self, ollama: "OllamaBackend", model: str) -> None:
        """Pull one model, again where it breaks off; an attempt that fetched anything does not count."""
        one = _ModelPull(self, ollama, model)

        def on_retry(attempt: int, delay_s: float, error: BackendError) -> None:
            self.on_message(f"{error}; again in {delay_s:.0f} s, from where it is")

        policy = RetryPolicy(retries=self.config.run.retries, sleep=self.sleep)
        try:
            with policy.attempts(on_retry, lambda: one.refunds) as attempts:
                async for attempt in attempts:
                    with attempt:
                        if one.broken:
                            await self._found(ollama, self.config.run.patience_s(RUN_PATIENCE_S))
                        await one.attempt()
        except TransientError as error:
            raise UnavailableError(
                f"{model} is not whole: {error}; run the same command again: Ollama keeps what it has, and "
                "goes on from there"
            ) from error


class _ModelPull:
    """One model on its way."""

    def __init__(self, pulling: Puller, ollama: "OllamaBackend", model: str) -> None:
        self._puller = pulling
        self._ollama = ollama
        self._model = model
        self._fetched_before = 0
        self._last = Pulled(status="")
        self._moved_at = 0.0
        self._furthest = 0
        self.refunds = 0
        self.broken = False

    async def attempt(self) -> None:
        """Have it pulled, or as much of it as comes before it breaks off."""
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
        except UnavailableError as error:  # it was there when it was looked for
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
        """Tell of a stall, and end one that lasts; while Ollama checks what it has, no bytes come."""
        told = False
        while True:
            await asyncio.sleep(min(self._puller.stalled_s, timeout_s) / 4)
            still_s = self._puller.clock() - self._moved_at
            if self._last.status.startswith(LOCAL_WORK):
                continue
            if still_s >= timeout_s:
                raise TransientError(f"no byte of {self._model} came for {timeout_s:g} s", kind="timeout")
            if still_s >= self._puller.stalled_s and not told:
                self._puller.on_message(
                    f"no byte of {self._model} came for {still_s:.0f} s; is the network of "
                    f"{self._ollama.place} well? Ctrl-C loses nothing: the same command goes on from here"
                )
            told = still_s >= self._puller.stalled_s
