"""Work beside other work: until a stop, while a thread counts, in threads that nobody waits for."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from vlmbatch.errors import VlmbatchError
from vlmbatch.events import TotalKnown
from vlmbatch.protocols import Observer

T = TypeVar("T")


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T], on_stop: Callable[[], None]) -> T | None:
    """What `work` returns, or None where `stop` is set first; `on_stop` is called, and `work` cancelled."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            if stop.is_set():
                on_stop()
            working.cancel()
            await asyncio.wait((working,))
    return None if working.cancelled() else working.result()


async def counted(work: Awaitable[None], count: Callable[[], int | None], notify: Observer) -> None:
    """Do the work while a thread counts how much there is."""

    async def tell_total(thread: ThreadPoolExecutor) -> None:
        total = await asyncio.get_running_loop().run_in_executor(thread, count)
        if total is not None:
            notify(TotalKnown(total=total))

    try:
        with threads(1, "vlmbatch-count") as thread:
            async with asyncio.TaskGroup() as group:
                counting = group.create_task(tell_total(thread))
                await work
                counting.cancel()
    except BaseExceptionGroup as group_error:
        raise first(group_error) from group_error


def first(error: BaseException) -> BaseException:
    """The one error to tell out of a group: one of ours before a bug."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [first(e) for e in error.exceptions]
    return next((e for e in leaves if isinstance(e, VlmbatchError)), leaves[0])


class Unawaited(ThreadPoolExecutor):
    """Threads that nobody waits for at the end: a decode or a disk that hangs cannot hold the exit."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Begin nothing more, and return at once."""
        super().shutdown(wait=False, cancel_futures=True)


def threads(number: int, name: str) -> ThreadPoolExecutor:
    """So many threads, for a ``with`` block at whose end nobody waits for them."""
    return Unawaited(number, name)
