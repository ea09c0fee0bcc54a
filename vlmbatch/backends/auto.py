"""Finds an endpoint if none is named: Ollama, a vLLM on its default port, then the demonstration model."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, TypeVar

from vlmbatch.backends.forwarding import ForwardingBackend
from vlmbatch.backends.http.deadlines import single_deadline
from vlmbatch.backends.http.hints import HINT_S, reason_of
from vlmbatch.errors import (
    BackendError,
    FatalBackendError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from vlmbatch.protocols import Backend, Tell, quiet
from vlmbatch.records import Endpoint

T = TypeVar("T")

UNNAMED_S = 15.0
"""Time limit in seconds for all requests to a server on a default port that the user did not name."""
HEAD_START_S = HINT_S + 1.0
"""After this many seconds without a result, the next candidate is tried, too."""


class OddServerError(UnreachableError):
    """A server that the user did not name accepts connections, but does not show which engine it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A candidate whose preflight succeeded; `stack` closes its backend."""

    backend: Backend
    endpoint: Endpoint
    stack: AsyncExitStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A possible endpoint. `sure` says that the user named its address, so that its refusal counts.

    `has_common_port`: many other programs listen at its default port, too. `is_demo`: it is the demonstration
    model, which must not replace a server that the user may want.
    """

    make: Callable[[], Backend]
    sure: bool
    has_common_port: bool = False
    is_demo: bool = False

    async def asked(self, engine: Backend, call: Callable[[], Awaitable[T]]) -> T:
        """The result of this call to the engine.

        Raises:
            OddServerError: an engine that the user did not name is too slow, busy, or refuses.
            UnreachableError: no engine listens at an address that the user did not name; another program may.
            BackendError: any other error of the call.
        """
        if self.sure:
            return await call()
        try:
            async with single_deadline(UNNAMED_S):
                return await call()
        except TimeoutError as error:
            raise OddServerError(f"{engine.place} did not answer within {UNNAMED_S:g} s") from error
        except BackendError as error:
            if isinstance(error, UnreachableError) or error.kind in ("model_not_found", "no_vision"):
                raise
            if error.kind == "wrong_url" and self.has_common_port:  # another program, with other routes
                raise UnreachableError(str(error)) from error
            raise OddServerError(f"a server listens at {engine.place}, but {reason_of(error)}") from error

    async def look(self, tell: Tell) -> Found:
        """The candidate after its preflight; raises the errors of `asked`."""
        backend = self.make()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(backend)
            endpoint = await self.asked(backend, partial(backend.preflight, tell))
            return Found(backend=backend, endpoint=endpoint, stack=stack.pop_all())


class Search:
    """Tries candidates in order, each some seconds before the next one, and keeps those that it found."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._looks: set[asyncio.Task[Found]] = set()
        self.found: list[Found] = []
        self.refused: list[BackendError] = []
        self.away: list[BackendError] = []

    @property
    def odd(self) -> list[BackendError]:
        """The errors of servers that did not show which engine they are."""
        return [error for error in self.away if isinstance(error, OddServerError)]

    @property
    def is_over(self) -> bool:
        """Whether a candidate is found whose model may have vision."""
        return any(each.endpoint.sees is not False for each in self.found)

    async def look(self, candidate: Candidate) -> None:
        """Try one more candidate, until it is found, has failed, or HEAD_START_S have passed."""
        look = asyncio.create_task(candidate.look(self._tell))
        self._looks.add(look)
        with suppress(TimeoutError):
            async with single_deadline(HEAD_START_S):
                await asyncio.wait((look,))
        self._collect()

    async def finish(self) -> None:
        """Wait for the candidates that are still busy, unless one is found."""
        while self._looks and not self.is_over:
            await asyncio.wait(self._looks, return_when=asyncio.FIRST_COMPLETED)
            self._collect()

    async def close(self, *, but: Found | None) -> None:
        """End all looks, and close all backends except this one."""
        for look in self._looks:
            look.cancel()
        ended = await asyncio.gather(*self._looks, return_exceptions=True)
        late = [each for each in ended if isinstance(each, Found)]
        for each in (*self.found, *late):
            if each is not but:
                await each.stack.aclose()

    def _collect(self) -> None:
        """Sort the results of the looks that have ended; raises errors that are not a BackendError."""
        for look in [look for look in self._looks if look.done()]:
            self._looks.discard(look)
            try:
                self.found.append(look.result())
            except (UnavailableError, TransientError) as error:
                self.away.append(error)
            except BackendError as error:
                self.refused.append(error)


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

    def masked(self, text: str) -> str:
        """The text without the secrets of the chosen backend, else of all candidates."""
        for backend in (self._chosen,) if self._chosen else (each.make() for each in self._candidates):
            text = backend.masked(text)
        return text

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def preflight(self, tell: Tell = quiet) -> Endpoint:
        """Look at each candidate in order, until one is found; one without vision is the last choice.

        Raises:
            ConfigError: a candidate has several models.
            FatalBackendError: no candidate that is up has the model.
            UnavailableError: no candidate is up.
        """
        search, chosen = Search(tell), None
        try:
            for candidate in self._candidates:
                if search.is_over or (candidate.is_demo and (search.odd or search.found)):
                    break
                await search.look(candidate)
            await search.finish()
            chosen = max(search.found, key=lambda each: each.endpoint.sees is not False, default=None)
        finally:
            await search.close(but=chosen)
        if chosen is None:
            raise combined_error(search.refused, search.away, self._hint)
        self._chosen, self._stack = chosen.backend, chosen.stack
        passed = tuple(f"not used: {error}" for error in search.odd)
        return replace(chosen.endpoint, notes=(*chosen.endpoint.notes, *passed))


ODD_HINT = (
    "name the endpoint with --backend and --base-url, or use the demonstration model with --backend llama-cpp"
)


def combined_error(refused: Sequence[BackendError], away: Sequence[BackendError], hint: str) -> BackendError:
    """One error for all candidates; `hint` ends it if all are down.

    A wrong URL counts only if there is no other refusal: it shows just that the server has the other API.
    """
    relevant = [e for e in refused if e.kind != "wrong_url"] or refused
    odd = [error for error in away if isinstance(error, OddServerError)]
    if relevant:
        return FatalBackendError("; ".join(map(str, (*relevant, *odd))), kind=relevant[0].kind)
    messages = map(reason_of, away)  # without the advice of each
    kind = UnreachableError if all(isinstance(e, UnreachableError) for e in away) else UnavailableError
    if odd:
        return kind("; ".join((*messages, ODD_HINT)))
    return kind(f"no model server answers: {', '.join(messages)}; {hint}")
