"""Finds an endpoint if none is named: Ollama, a vLLM on its default port, then the demonstration model."""

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
"""Time limit in seconds for a server on a default port that the user did not name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A possible endpoint. `sure` says that the user named its address, so that its refusal counts."""

    make: Callable[[], Backend]
    sure: bool

    async def asked(self, engine: Backend, call: Callable[[], Awaitable[T]]) -> T:
        """The result of this call to the engine.

        Raises:
            UnreachableError: an engine that the user did not name is too slow, busy, or refuses.
            BackendError: any other error of the call.
        """
        try:
            async with asyncio.timeout(None if self.sure else UNNAMED_TIMEOUT_S):
                return await call()
        except TimeoutError as error:
            raise UnreachableError(f"no answer from {engine.place}") from error
        except BackendError as error:
            # on an unnamed port a busy server is not worth a wait; one that refuses may be another program
            if self.sure or error.kind in ("model_not_found", "no_vision"):
                raise
            raise UnreachableError(str(error)) from error


class AutoBackend(ForwardingBackend):
    """Becomes the first candidate that is up and has the model."""

    def __init__(self, candidates: Sequence[Candidate], hint: str) -> None:
        """`hint` ends the error if no candidate answers."""
        self._candidates = candidates
        self._hint = hint
        self._chosen: Backend | None = None
        self._stack = AsyncExitStack()

    @property
    def inner(self) -> Backend:
        """The backend that preflight has chosen."""
        if self._chosen is None:
            raise RuntimeError("used before preflight has chosen a backend")
        return self._chosen

    @property
    def name(self) -> str:
        """`auto`; the chosen backend has its own name."""
        return "auto"

    @property
    def place(self) -> str:
        """The addresses of all candidates, in order."""
        made = [candidate.make() for candidate in self._candidates]
        return ", else ".join(f"{backend.name} at {backend.place}" for backend in made)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def preflight(self) -> Endpoint:
        """Run the preflight of each candidate in order, until one succeeds.

        Raises:
            ConfigError: a candidate has several models.
            FatalBackendError: no candidate that is up has the model.
            UnavailableError: no candidate is up.
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
    """One error for all candidates; `hint` ends it if all are down.

    A wrong URL counts only if there is no other refusal: it shows just that the server has the other API.
    """
    relevant = [e for e in refused if e.kind != "wrong_url"] or refused
    if relevant:
        return FatalBackendError("; ".join(map(str, relevant)), kind=relevant[0].kind)
    messages = [str(error).partition("; ")[0] for error in away]  # without the hint of each
    kind = UnreachableError if all(isinstance(e, UnreachableError) for e in away) else UnavailableError
    return kind("; ".join((*messages, hint)))
