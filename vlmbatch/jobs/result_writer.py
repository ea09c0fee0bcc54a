"""Stores the results of jobs in Redis, many results with one call."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from vlmbatch.jobs.claims import Claim, Claims
from vlmbatch.jobs.redis_retry import RedisRetry

GATHER_S = 0.02
"""The first result waits this long for others, in seconds: a call to Redis costs more than a result."""
MOST = 64
"""The most results that go to Redis with one call."""
Outcome = tuple[Claim, Mapping[str, Any]]


class ResultWriter:
    """Stores results. While Redis cannot be reached or is full, it keeps them, and its callers wait."""

    def __init__(self, claims: Claims, retry: RedisRetry) -> None:
        self._claims = claims
        self._retry = retry
        self._waiting: asyncio.Queue[tuple[Outcome, asyncio.Future[bool]]] = asyncio.Queue()

    async def finish(self, claim: Claim, record: Mapping[str, Any]) -> bool:
        """Store the record of a job; returns whether it is the first result of the job."""
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(((claim, record), stored))
        return await stored

    async def run(self) -> None:
        """Store results until this task is cancelled."""
        while True:
            taken = [await self._waiting.get()]
            if self._waiting.qsize() < MOST:
                await asyncio.sleep(GATHER_S)
            while len(taken) < MOST and not self._waiting.empty():
                taken.append(self._waiting.get_nowait())
            outcomes = [outcome for outcome, _ in taken]
            are_first = await self._retry.call(partial(self._claims.finish, outcomes))
            for (_, stored), is_first in zip(taken, are_first, strict=True):
                if not stored.done():
                    stored.set_result(is_first)
