"""The border between a backend and the run: no bug and no secret of a backend passes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from vlmbatch.backends.forwarding import ForwardingBackend
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.errors import InternalError, VlmbatchError
from vlmbatch.protocols import Tell, quiet
from vlmbatch.records import Completion, Endpoint, Generation, Load


class GuardedBackend(ForwardingBackend):
    """Forwards all calls. A bug costs the request or the hint, and messages have no secrets."""

    def __init__(self, bugs: Bugs, named: str | None = None) -> None:
        """`bugs` reports unexpected exceptions of the backend; `named` is the model that the user named."""
        self._bugs = bugs
        self._named = frozenset((named, (named or "").removesuffix(":latest")))

    @contextmanager
    def border(self) -> Iterator[None]:
        """Raise an InternalError for an unexpected exception, and mask the secrets in an expected one."""
        try:
            yield
        except VlmbatchError as error:
            error.args = (self.masked(str(error)),)
            raise
        except Exception as error:  # noqa: BLE001  # the border: any exception may come here
            raise self._bugs.caught(error, self.place, self.masked) from None

    def shown(self, done: Completion) -> Completion:
        """The completion with its secrets masked, but for the answer itself, which is data."""
        model, reason = self._shown(done.model), self.masked(done.finish_reason)
        return replace(
            done, model=model, finish_reason=reason, warnings=tuple(map(self.masked, done.warnings))
        )

    def _shown(self, name: str) -> str:
        """A name of the server, masked: a server may list a model that is named like the key."""
        return name if name in self._named else self.masked(name)

    async def preflight(self, tell: Tell = quiet) -> Endpoint:
        """See protocols.Backend."""
        with self.border():
            found = await super().preflight(lambda reason: tell(self.masked(reason)))
            return replace(
                found,
                model=self._shown(found.model),
                digest=found.digest and self._shown(found.digest),
                architecture=found.architecture and self._shown(found.architecture),
                version=found.version and self.masked(found.version),
                notes=tuple(map(self.masked, found.notes)),
            )

    async def probe(self) -> None:
        """See protocols.Backend."""
        with self.border():
            await super().probe()

    async def listens(self) -> bool:
        """See protocols.Backend; after a bug it is unknown, so true."""
        try:
            with self.border():
                return await super().listens()
        except InternalError:
            return True

    async def load(self) -> Load | None:
        """See protocols.Backend; None after a bug."""
        try:
            with self.border():
                return await super().load()
        except InternalError:
            return None

    async def why_slow(self) -> str | None:
        """See protocols.ExplainsWaits; None after a bug."""
        try:
            with self.border():
                reason = await super().why_slow()
        except InternalError:
            return None
        return None if reason is None else self.masked(reason)

    async def warm_up(self, generation: Generation, deadline_s: float) -> float:
        """See protocols.Backend."""
        with self.border():
            return await super().warm_up(generation, deadline_s)

    async def unload(self) -> None:
        """See protocols.Backend."""
        with self.border():
            await super().unload()
