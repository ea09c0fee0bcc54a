"""Finds an endpoint where none is named: Ollama, a vLLM on its default port, then the demonstration model."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self, TypeVar

from vlmbatch.backends.forwarding import ForwardingBackend
from vlmbatch.errors import (
    BackendError,
    FatalBackendError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from vlmbatch.protocols import Backend
from vlmbatch.records import Endpoint

T = TypeVar("T")

UNNAMED_TIMEOUT_S = 2.0
"""How long somebody may take on a port that nobody named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An engine to ask. `sure` says that the user named its place, so that its refusal counts."""

    make: Callable[[], Backend]
    sure: bool

    async def asked(self, engine: Backend, question: Callable[[], Awaitable[T]]) -> T:
        """What the question to this engine gives; a stranger who is no use is nobody.

        Raises:
            BackendError: it does not answer, or refuses, and that counts.
        """
        try:
            async with asyncio.timeout(None if self.sure else UNNAMED_TIMEOUT_S):
                return await question()
        except TimeoutError as error:
            raise UnreachableError(f"no answer from {engine.place}") from error
        except BackendError as error:
            # a stranger who is busy is nobody to wait for, and one who refuses may be no engine at all
            if self.sure or error.kind in ("model_not_found", "no_vision"):
                raise
            raise UnreachableError(str(error)) from error


class AutoBackend(ForwardingBackend):
    """The first candidate that is there and has the model; from then on it is that backend."""

    def __init__(self, candidates: Sequence[Candidate], hint: str) -> None:
        """`hint` is what to type where nobody answers."""
        self._candidates = candidates
        self._hint = hint
        self._chosen: Backend | None = None
        self._stack = AsyncExitStack()

    @property
    def inner(self) -> Backend:
        """The one that preflight has found."""
        if self._chosen is None:
            raise RuntimeError("used before preflight has chosen a backend")
        return self._chosen

    @property
    def name(self) -> str:
        """Its own: the chosen backend has another one."""
        return "auto"

    @property
    def place(self) -> str:
        """All that it would ask, in order."""
        made = [candidate.make() for candidate in self._candidates]
        return ", else ".join(f"{backend.name} at {backend.place}" for backend in made)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def preflight(self) -> Endpoint:
        """Ask each candidate once, in order.

        Raises:
            ConfigError: one has several models to choose from.
            FatalBackendError: those that are there do not have the model.
            UnavailableError: nobody is there.
        """
        refused: list[BackendError] = []
        away: list[BackendError] = []
        for candidate in self._candidates:
            backend = candidate.make()
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(backend)
                try:
                    endpoint = await candidate.asked(backend, backend.preflight)
                except (UnavailableError, TransientError) as error:
                    away.append(error)
                except BackendError as error:
                    refused.append(error)
                else:
                    self._chosen, self._stack = backend, stack.pop_all()
                    return endpoint
        raise combined_error(refused, away, self._hint)


def combined_error(refused: Sequence[BackendError], away: Sequence[BackendError], hint: str) -> BackendError:
    """One error for all who were asked; that a path is unknown there says only that it speaks the other wire.

    `hint` is what to type where nobody is there.
    """
    telling = [e for e in refused if e.kind != "wrong_url"] or refused
    if telling:
        return FatalBackendError("; ".join(map(str, telling)), kind=telling[0].kind)
    told = [str(error).partition("; ")[0] for error in away]  # without what each says to do
    kind = UnreachableError if all(isinstance(e, UnreachableError) for e in away) else UnavailableError
    return kind("; ".join((*told, hint)))
