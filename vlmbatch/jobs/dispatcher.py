"""Claims jobs for the waiting tasks of a worker, several jobs with one call."""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial

from vlmbatch.jobs.claims import Claim, Claims
from vlmbatch.jobs.redis_retry import RedisRetry

GATHER_S = 0.01
"""The pause after a claim, so that the next one is for several tasks: a call costs more than a job."""
IDLE_S = (0.01, 0.25)
"""The first and the longest pause before an empty queue is looked at again."""


class Dispatcher:
    """Hands jobs to tasks. A job is claimed only for a task that waits, so that no job waits in a worker."""

    def __init__(self, claims: Claims, retry: RedisRetry, *, ends_when_empty: bool = False) -> None:
        """With `ends_when_empty`, it ends once the queues are empty."""
        self._claims = claims
        self._retry = retry
        self._ends_when_empty = ends_when_empty
        self._waiting: deque[asyncio.Future[Claim | None]] = deque()
        self._changed = asyncio.Event()
        self._paused = False
        self.is_over = False
        self.untaken: list[Claim] = []
        """Jobs whose task was cancelled before it could take them."""
        self.in_work = 0
        """How many claims the tasks have."""

    async def take(self) -> Claim | None:
        """Wait for the next job; None once the dispatcher has ended."""
        if self.is_over:
            return None
        future: asyncio.Future[Claim | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._changed.set()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # the job came at the same moment
                self.untaken.extend(claim for claim in (future.result(),) if claim is not None)
            raise

    def pause(self) -> None:
        """Claim nothing until resume()."""
        self._paused = True

    def resume(self) -> None:
        """Claim again."""
        self._paused = False
        self._changed.set()

    def stop(self) -> None:
        """Claim nothing more; the tasks that wait get None."""
        self.is_over = True
        self._changed.set()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    async def run(self) -> None:
        """Claim jobs until stop().

        Raises:
            ConfigError: this worker cannot use the queue.
        """
        delay, longest = IDLE_S
        while not self.is_over:
            wanted = 0 if self._paused else len(self._waiting)
            if not wanted:
                self._changed.clear()
                await self._changed.wait()
                continue
            claims = await self._retry.call(partial(self._claims.claim, wanted))
            await self._hand_out(claims)
            if claims:
                delay = IDLE_S[0]
                await asyncio.sleep(GATHER_S)
            elif self._ends_when_empty and not self.in_work:
                self.stop()
            else:
                await asyncio.sleep(delay)
                delay = min(2 * delay, longest)

    async def _hand_out(self, claims: Sequence[Claim]) -> None:
        """Give each job to a task. A task may have ended meanwhile: its job goes back to its queue."""
        left = deque(claims)
        while left and self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                self.in_work += 1
                future.set_result(left.popleft())
        if left:
            await self._retry.call(partial(self._claims.release, list(left)))
