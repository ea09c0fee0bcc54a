"""Those who wait for a slot of some rank, in the order in which they came; it does not know whose slots."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class WaitingLine:
    """Whoever is woken looks around, and waits again, at the head of the line, where there is nothing."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait(self, rank: int, *, first: bool) -> None:
        """Wait to be woken, for a slot of this rank; who was woken for nothing comes `first`."""
        waiting = asyncio.get_running_loop().create_future(), rank
        (self._waiting.appendleft if first else self._waiting.append)(waiting)
        try:
            await waiting[0]
        except asyncio.CancelledError:
            with suppress(ValueError):  # who was woken was taken out
                self._waiting.remove(waiting)
            raise

    def wake_all(self) -> None:
        """Let everybody look around."""
        waiting, self._waiting = self._waiting, deque()
        for woken, _ in waiting:
            if not woken.done():
                woken.set_result(None)

    def wake_one(self, suits: Callable[[int], bool]) -> bool:
        """Wake the first whose rank suits; whether there is one."""
        waiting = enumerate(self._waiting)
        at = next((at for at, (woken, rank) in waiting if suits(rank) and not woken.done()), None)
        if at is None:
            return False
        woken, _ = self._waiting[at]
        del self._waiting[at]
        woken.set_result(None)
        return True
