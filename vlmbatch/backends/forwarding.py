"""The base class of a backend that wraps another one and forwards every call that it does not change."""

from abc import ABC, abstractmethod
from typing import Self

from vlmbatch.protocols import Backend, ExplainsWaits, Tell, quiet
from vlmbatch.records import Completion, Endpoint, Generation, Load, Request


class ForwardingBackend(ABC):
    """Forwards every method of protocols.Backend to `inner`."""

    @property
    @abstractmethod
    def inner(self) -> Backend:
        """The wrapped backend."""

    @property
    def name(self) -> str:
        """See protocols.Backend."""
        return self.inner.name

    @property
    def place(self) -> str:
        """See protocols.Backend."""
        return self.inner.place

    @property
    def concurrency(self) -> int:
        """See protocols.Backend."""
        return self.inner.concurrency

    def masked(self, text: str) -> str:
        """See protocols.Backend."""
        return self.inner.masked(text)

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.inner.__aexit__(*exc)  # type: ignore[arg-type]  # forwarded unchanged

    async def preflight(self, tell: Tell = quiet) -> Endpoint:
        """See protocols.Backend."""
        return await self.inner.preflight(tell)

    async def probe(self) -> None:
        """See protocols.Backend."""
        await self.inner.probe()

    async def listens(self) -> bool:
        """See protocols.Backend."""
        return await self.inner.listens()

    async def load(self) -> Load | None:
        """See protocols.Backend."""
        return await self.inner.load()

    async def why_slow(self) -> str | None:
        """See protocols.ExplainsWaits."""
        return await self.inner.why_slow() if isinstance(self.inner, ExplainsWaits) else None

    async def warm_up(self, generation: Generation, deadline_s: float) -> float:
        """See protocols.Backend."""
        return await self.inner.warm_up(generation, deadline_s)

    async def unload(self) -> None:
        """See protocols.Backend."""
        await self.inner.unload()

    async def complete(self, request: Request) -> Completion:
        """See protocols.Backend."""
        return await self.inner.complete(request)
