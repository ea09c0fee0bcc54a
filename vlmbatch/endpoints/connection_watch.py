"""Finds a server that is gone while all slots wait for a reply, so that no new request can be refused."""

import asyncio

from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.in_flight import InFlight
from vlmbatch.endpoints.pool import EndpointPool
from vlmbatch.errors import UnreachableError
from vlmbatch.protocols import Sleep

LOOK_S = 0.5
"""The interval between two looks at the endpoints."""
SILENT_S = 0.5
"""After this long without a reply, a connection is tried."""
AGAIN_S = 0.2
"""A server is gone if it refuses two connections with this interval."""
REUSED_S = 3.0
"""A probe without a reply for this long may have taken an idle connection to a process that is gone."""


class ConnectionWatch:
    """Tries a connection to each endpoint whose requests have had no reply for a while.

    A slow server accepts it. A server that refuses it twice is down: its endpoint pauses.
    """

    def __init__(self, pool: EndpointPool, bugs: Bugs, sleep: Sleep) -> None:
        self._pool = pool
        self._bugs = bugs
        self._sleep = sleep
        self._gone: set[PooledEndpoint] = set()
        """The endpoints that refused connections, until they take requests again or were probed again."""

    async def run(self) -> None:
        """Watch until it is cancelled."""
        while True:
            await self._sleep(LOOK_S)
            await asyncio.gather(*(self._bugs.survived(self._look_at, each) for each in self._pool))

    async def _look_at(self, endpoint: PooledEndpoint) -> None:
        """Pause an endpoint that is gone; if it is paused or not proven yet, drop the requests that prove it.

        Requests about images are not dropped: a server that is still closing may reply to them.
        """
        asked = endpoint.in_flight if endpoint.is_open else endpoint.proofs
        if endpoint.is_open:
            self._gone.discard(endpoint)
        if not await self._is_gone(endpoint, asked):
            if endpoint in self._gone and asked.silent_s >= REUSED_S:
                self._gone.discard(endpoint)
                endpoint.proofs.drop()
            return
        self._gone.add(endpoint)
        if endpoint.is_open:
            told = f"no connection to {endpoint.place}: Connection refused, and no reply to its requests"
            error = UnreachableError(told)
            error.refused = True
            await self._pool.unavailable(endpoint, error, 1)
        else:
            endpoint.proofs.drop()

    async def _is_gone(self, endpoint: PooledEndpoint, asked: InFlight) -> bool:
        """Whether the server does not reply to these requests, and refuses two connections."""
        if asked.silent_s < SILENT_S or await endpoint.backend.listens():
            return False
        await self._sleep(AGAIN_S)
        return asked.silent_s >= SILENT_S and not await endpoint.backend.listens()
