"""Small parts for an event loop that the standard library lacks; they know nothing of images."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

from vlmbatch.errors import VlmbatchError

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


class ReadAhead(Generic[T]):
    """The items of an iterator that blocks, for one taker at a time.

    A thread that is asked for each single item costs more than what most items take to be found.
    """

    def __init__(self, items: Iterator[T], *, ahead: int, name: str) -> None:
        """At most `ahead` items wait; `name` is the thread's, which starts with the first take()."""
        self._items = items
        self._ahead = ahead
        self._thread = threading.Thread(target=self._iterate, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()
        self._waiting: deque[T] = deque()
        self._came = asyncio.Event()
        self._hungry = False
        self._over = False
        self._closed = False
        self._error: BaseException | None = None

    async def take(self) -> T | None:
        """The next item, as soon as it is there; None at the end.

        Raises what iterating raised, once the items before that are taken.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        while True:
            with self._changed:
                if self._waiting:
                    if len(self._waiting) == (self._ahead + 1) // 2:
                        self._changed.notify()
                    return self._waiting.popleft()
                if self._error is not None:
                    raise self._error
                if self._over:
                    return None
                self._came.clear()
                self._hungry = True
            await self._came.wait()

    def close(self) -> None:
        """Nothing will be taken any more: let the thread end when it gets to it."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _iterate(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._ahead)
                    if self._closed:
                        return
                    self._waiting.append(item)
                    self._feed()
        except BaseException as error:  # noqa: BLE001  # carried over to who takes
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._feed()

    def _feed(self) -> None:
        """Wake whoever waits for an item."""
        if self._hungry and self._loop is not None:
            self._hungry = False
            with suppress(RuntimeError):  # its loop has ended without it
                self._loop.call_soon_threadsafe(self._came.set)
