"""The roles of a batch: at any time, only one program adds jobs to it, and only one collects its results."""

import asyncio
from contextlib import suppress
from typing import Literal, Self
from uuid import uuid4

from vlmbatch.errors import LockedError, QueueAwayError, QueueFullError
from vlmbatch.jobs.batches import HOLD_S, Batches

RoleName = Literal["fill", "collect"]
_COMMANDS = {"fill": "vlmbatch enqueue adds images to", "collect": "vlmbatch collect collects"}


class BatchLock:
    """Holds a role inside ``async with``, in an event loop."""

    def __init__(self, batches: Batches, batch: str, role: RoleName) -> None:
        self._batches = batches
        self._batch = batch
        self._role = role
        self._token = uuid4().hex
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Take the role.

        Raises:
            LockedError: another program has it.
            QueueAwayError: Redis cannot be reached.
        """
        if not await asyncio.to_thread(self._hold):
            raise LockedError(
                f"another {_COMMANDS[self._role]} the batch {self._batch}; wait until it ends, or name "
                "another batch with --batch. If it was killed, try again in a minute"
            )
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up the role. If Redis cannot be reached, the role ends by itself."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        with suppress(QueueAwayError):
            await asyncio.to_thread(self._batches.free, self._batch, self._role, self._token)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(HOLD_S / 3)
            with suppress(QueueAwayError, QueueFullError):  # the next time may come before the role ends
                await asyncio.to_thread(self._hold)

    def _hold(self) -> bool:
        return self._batches.hold(self._batch, self._role, self._token)
