"""Repeats calls to a Redis that cannot be reached or is full, so that a worker waits and does not end."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from vlmbatch.errors import QueueAwayError, QueueFullError
from vlmbatch.protocols import Sleep, Tell

T = TypeVar("T")
FIRST_S = 0.5
LONGEST_S = 5.0


class RedisRetry:
    """Repeats calls to Redis until they succeed. An outage has one message, and its end another one."""

    def __init__(self, tell: Tell, *, sleep: Sleep = asyncio.sleep) -> None:
        self._tell = tell
        self._sleep = sleep
        self._told = ""

    async def call(self, work: Callable[[], T]) -> T:
        """The result of `work` in a thread, once Redis answers; raises the other exceptions of `work`."""
        delay = FIRST_S
        while True:
            try:
                result = await asyncio.to_thread(work)
            except (QueueAwayError, QueueFullError) as error:
                if self._told != str(error):
                    self._told = str(error)
                    self._tell(f"{error}; waiting until Redis can be used again")
                await self._sleep(delay)
                delay = min(2 * delay, LONGEST_S)
            else:
                if self._told:
                    self._told = ""
                    self._tell("the Redis of the queue can be used again")
                return result
