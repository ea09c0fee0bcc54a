"""Small general tools for an event loop that the standard library lacks."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

from vlmbatch.errors import VlmbatchError

T = TypeVar("T")


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T], on_stop: Callable[[], None]) -> T | None:
    """The result of `work`; if `stop` is set first, call `on_stop`, cancel `work` and return None."""
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
    """The one error of a group to report: a VlmbatchError if it has one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [first(e) for e in error.exceptions]
    return next((e for e in leaves if isinstance(e, VlmbatchError)), leaves[0])


class Unawaited(ThreadPoolExecutor):
    """A thread pool that ends without waiting: a hanging decode or disk cannot block the exit."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Start no more work, and return at once."""
        super().shutdown(wait=False, cancel_futures=True)

    async def call(self, work: Callable[[], T], on_abandoned: Callable[[], None]) -> T:
        """Wait for the result of `work` in a thread, or for its exception.

        If the caller is cancelled, work that has begun continues. `on_abandoned` is called in the event loop
        when the work has ended, or at once if it had not begun. Raises RuntimeError if no thread can start.
        """
        working = self.submit(work)
        try:
            return await asyncio.wrap_future(working)
        except asyncio.CancelledError:  # a thread cannot be stopped
            loop = asyncio.get_running_loop()

            def abandon(_working: object) -> None:
                with suppress(RuntimeError):  # the event loop has been closed
                    loop.call_soon_threadsafe(on_abandoned)

            working.add_done_callback(abandon)
            raise
        finally:
            del working  # its error holds this frame, which must not hold the error


def threads(number: int, name: str) -> Unawaited:
    """A pool of `number` threads; the end of its ``with`` block does not wait for them."""
    return Unawaited(number, name)


class Turns:
    """Runs the work of several clients in one thread: they take turns, and none waits for all of another.

    The work of one client is done in order.
    """

    def __init__(self, name: str) -> None:
        """The thread is called `name` and starts with the first work."""
        self._thread = threads(1, name)
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        self._last: str | None = None

    async def call(self, client: str, work: Callable[[], T]) -> T:
        """Wait for the result of `work`, or for its exception. Work that is cancelled may still go on."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(client, deque()).append((future, work))
        self._thread.submit(self._run_next)
        return await asyncio.wrap_future(future)

    def _run_next(self) -> None:
        """Do the first work of the next client: not of the last one again, if another one waits."""
        with self._lock:
            first = next(iter(self._waiting))
            self._last = client = next((each for each in self._waiting if each != self._last), first)
            works = self._waiting.pop(client)
            future, work = works.popleft()
            if works:
                self._waiting[client] = works
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # call() raises it
            future.set_exception(error)
            del future  # its error holds this frame, which must not hold the error


class ReadAhead(Generic[T]):
    """Reads a blocking iterator ahead in a thread, for one consumer at a time.

    One call to a thread for each item would cost more than most items cost to find.
    """

    def __init__(self, items: Iterator[T], *, ahead: int, name: str) -> None:
        """At most `ahead` items wait. The thread is called `name` and starts with the first take()."""
        self.rested = asyncio.Event()
        """Set once the thread has read far enough ahead for the first time, or has read the last item."""
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
        """Wait for the next item and return it; None at the end.

        Raises the exception of the iterator after the items before it were taken.
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

    async def take_some(self, most: int) -> list[T]:
        """Wait for the next item; return it and those that are there, too, up to `most`. Empty at the end.

        Raises as take() does.
        """
        taken: list[T] = []
        while len(taken) < most and (self._waiting or not taken):
            item = await self.take()
            if item is None:
                break
            taken.append(item)
        return taken

    def close(self) -> None:
        """End the thread at its next item, since no more will be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _iterate(self) -> None:
        item = None
        try:
            for item in self._items:
                with self._changed:
                    if len(self._waiting) == self._ahead:
                        self._tell(self.rested)
                    self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._ahead)
                    if self._closed:
                        return
                    self._waiting.append(item)
                    self._feed()
        except BaseException as error:  # noqa: BLE001  # take() raises it
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._feed()
                if item is not None:
                    self._tell(self.rested)

    def _feed(self) -> None:
        """Wake a take() that waits for an item."""
        if self._hungry:
            self._hungry = False
            self._tell(self._came)

    def _tell(self, event: asyncio.Event) -> None:
        """Set an event of the event loop."""
        if self._loop is not None and not event.is_set():
            with suppress(RuntimeError):  # the event loop has been closed
                self._loop.call_soon_threadsafe(event.set)
