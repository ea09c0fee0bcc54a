"""Reports once why a request may have to wait, for example because another program uses another model."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from vlmbatch.aio import first
from vlmbatch.protocols import Backend, ExplainsWaits

T = TypeVar("T")

SLOW_S = 30.0
"""A load of the model, or a proof, that takes longer is reported while it goes on."""


class SlowNotice:
    """The notice about one slow endpoint; it is given once for a load or a proof, and once for a timeout."""

    def __init__(self, backend: Backend, tell: Callable[[str], None], *, slow_s: float = SLOW_S) -> None:
        """`tell` gets the message; `slow_s` is the time in seconds after which a load or a proof is slow."""
        self._backend = backend
        self._tell = tell
        self._slow_s = slow_s
        self._told_slow = False
        self._told_timeout = False

    async def loading(self, load: Awaitable[T]) -> T:
        """The result of this load of the model; a slow one is reported while it goes on."""
        return await self._watched(load, "is still loading the model after")

    async def proving(self, proof: Awaitable[T]) -> T:
        """The result of this proof by a test picture; a slow one is reported while it goes on."""
        return await self._watched(
            proof, "may still load the model, and has not answered the test picture for"
        )

    async def _watched(self, work: Awaitable[T], told: str) -> T:
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._report_slow(told))
                try:
                    return await work
                finally:
                    watch.cancel()
        except BaseExceptionGroup as error:
            raise first(error) from error

    async def timed_out(self) -> None:
        """Report the first request without an answer, if the endpoint says what may delay it."""
        if self._told_timeout:
            return
        self._told_timeout = True
        reason = await self._reason()
        if reason is not None:
            self._tell(f"{self._backend.place} did not answer in time: {reason}")

    async def _report_slow(self, told: str) -> None:
        await asyncio.sleep(self._slow_s)
        reason = await self._reason()
        if not self._told_slow:
            self._told_slow = True
            still = f"{self._backend.place} {told} {self._slow_s:g} s"
            self._tell(still if reason is None else f"{still}: {reason}")

    async def _reason(self) -> str | None:
        return await self._backend.why_slow() if isinstance(self._backend, ExplainsWaits) else None
