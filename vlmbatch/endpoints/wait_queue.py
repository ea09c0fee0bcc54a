"""The queue of images that wait for a slot at an endpoint of some rank."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class WaitQueue:
    """Images that wait for a slot, in the order in which they came.

    A woken image looks at the endpoints again; if it finds no slot, it waits again, at the head of the queue.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, rank: int, *, at_front: bool) -> None:
        """Wait to be woken for a slot of this rank; `at_front` goes to the head of the queue."""
        waiting = asyncio.get_running_loop().create_future(), rank
        (self._waiting.appendleft if at_front else self._waiting.append)(waiting)
        try:
            await waiting[0]
        except asyncio.CancelledError:
            with suppress(ValueError):  # a woken image is not in the queue any more
                self._waiting.remove(waiting)
            raise

    def wake_all(self) -> None:
        """Let all images look at the endpoints again."""
        waiting, self._waiting = self._waiting, deque()
        for woken, _ in waiting:
            if not woken.done():
                woken.set_result(None)

    def wake_one(self, suits: Callable[[int], bool]) -> bool:
        """Wake the first image whose rank suits; returns whether there was one."""
        waiting = enumerate(self._waiting)
        at = next((at for at, (woken, rank) in waiting if suits(rank) and not woken.done()), None)
        if at is None:
            return False
        woken, _ = self._waiting[at]
        del self._waiting[at]
        woken.set_result(None)
        return True
