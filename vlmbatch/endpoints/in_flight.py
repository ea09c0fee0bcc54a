"""The requests in flight at one endpoint: how long they have had no reply, and how to drop them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vlmbatch.errors import StaleConnectionError


class InFlight:
    """Knows the requests in flight, and drops them if their server is gone.

    A server that is stopped may keep its connections open and never reply (vLLM does). Then only the time
    limit of each request would end it.
    """

    def __init__(self) -> None:
        self._open: set[asyncio.Timeout] = set()
        self._silent_since = 0.0

    @property
    def silent_s(self) -> float:
        """Seconds since the last reply, or since the first request was sent; 0 if none is in flight."""
        return asyncio.get_running_loop().time() - self._silent_since if self._open else 0.0

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Send a request and get its reply inside the ``async with``.

        Raises:
            StaleConnectionError: the request was dropped.
        """
        clock = asyncio.get_running_loop().time
        if not self._open:
            self._silent_since = clock()
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._open.add(scope)
                try:
                    yield
                finally:
                    self._open.discard(scope)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise StaleConnectionError(
                "the server was stopped before it replied; the request is sent again"
            ) from error
        finally:
            self._silent_since = clock()

    def drop(self) -> int:
        """End all requests in flight, and return their number."""
        dropped, self._open = self._open, set()
        now = asyncio.get_running_loop().time()
        for each in dropped:
            each.reschedule(now)
        return len(dropped)
