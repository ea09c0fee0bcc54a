"""Iterates in a thread, some items ahead of who takes them in the event loop; knows nothing of the items."""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


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
