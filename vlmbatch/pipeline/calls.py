"""The calls of a session: bounded in number, ended by a deadline, and closed with the session."""

import asyncio
from contextlib import nullcontext

from vlmbatch.cache import Cache
from vlmbatch.errors import AnswerClassError, Busy, SessionClosed
from vlmbatch.pipeline.processor import ImageProcessor
from vlmbatch.pipeline.task import ImageTask
from vlmbatch.protocols import Observer
from vlmbatch.records import Failure, Result


class Calls:
    """Each call runs in an asyncio task of its own, so that close() can end it without its caller."""

    def __init__(
        self,
        processor: ImageProcessor,
        cache: Cache | None,
        stop: asyncio.Event,
        notify: Observer,
        *,
        max_waiting: int,
        drain_s: float,
    ) -> None:
        """At most `max_waiting` calls may wait to begin. `stop` is set when the session closes."""
        self._processor = processor
        self._cache = cache
        self._stop = stop
        self._notify = notify
        self._max_waiting = max_waiting
        self._drain_s = drain_s
        self._calls: set[asyncio.Task[Result]] = set()
        self._waiting: set[asyncio.Task[Result]] = set()

    @property
    def waiting(self) -> int:
        """How many calls wait to begin, without those that their caller bounds."""
        return len(self._waiting)

    async def answer(
        self,
        task: ImageTask,
        deadline_s: float | None = None,
        *,
        is_bounded: bool = False,
        has_room: bool = False,
    ) -> Result:
        """The result of the task, or a failure of kind `timeout` after `deadline_s` seconds.

        With `is_bounded`, the caller bounds its calls itself. With `has_room`, it holds a room of the pool.

        Raises:
            Busy: too many calls wait to begin.
            SessionClosed: the session was closed.
            Exception: the user's pydantic class raised it.
            VlmbatchError: see ImageProcessor.process().
        """
        if not is_bounded and len(self._waiting) >= self._max_waiting:
            raise Busy(
                f"{len(self._waiting)} calls wait to begin, as many as max_waiting allows; try again later"
            )
        if self._stop.is_set():
            raise SessionClosed("the session is closed; open another one")
        call = asyncio.ensure_future(self._traced(task, deadline_s, has_room))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        if not is_bounded:
            self._waiting.add(call)
            call.add_done_callback(self._waiting.discard)
        try:
            await asyncio.wait((call,))
        except asyncio.CancelledError:
            call.cancel()
            await asyncio.wait((call,))
            raise
        if call.cancelled():
            raise SessionClosed(f"the session was closed before {task.id} had its answer")
        try:
            return call.result()
        except AnswerClassError as error:
            raise error.raised from error.raised.__cause__

    async def _traced(self, task: ImageTask, deadline_s: float | None, has_room: bool) -> Result:
        """See _processed(); ends with an ImageTraced event."""
        try:
            result = await self._processed(task, deadline_s, has_room)
        except BaseException as error:
            self._notify(task.steps.traced(task.id, error))
            raise
        self._notify(task.steps.traced(task.id, result))
        return result

    async def _processed(self, task: ImageTask, deadline_s: float | None, has_room: bool) -> Result:
        call = asyncio.current_task()
        room = nullcontext() if has_room else self._processor.pool.room()
        task.steps.begin("wait")
        try:
            async with asyncio.timeout(deadline_s) as deadline, room:
                self._waiting.discard(call)
                result = await self._processor.process(task)
        except TimeoutError:
            if deadline_s is None or not deadline.expired():
                raise
            return task.result(self._too_late(task, deadline_s))
        finally:
            self._processor.in_flight.discard(call)
        if self._cache is not None:
            self._cache.keep(result, scope=task.question.scope)
        return result

    def _too_late(self, task: ImageTask, deadline_s: float) -> Failure:
        """The failure of a task at its deadline; an endpoint that was busy until then is no timeout."""
        away, is_busy = self._processor.pool.first_away(), task.steps.last_error == "busy"
        why: object = away if away is not None else "the endpoint is busy" if is_busy else None
        shown = round(deadline_s, 0 if deadline_s >= 10 else 2)
        told = f"no answer within {shown:g} s" + (f": {why}" if why is not None else "")
        return Failure(kind="busy" if is_busy else "timeout", message=told, retryable=True)

    async def close(self, *, at_once: bool = False) -> None:
        """Begin nothing more, and wait for the requests in flight for `drain_s` seconds, unless `at_once`."""
        self._stop.set()
        for call in self._calls:
            if at_once or call not in self._processor.in_flight:
                call.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._drain_s)
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)


def checked_deadline(seconds: object) -> float | None:
    """The `deadline_s` that a caller gives; raises a TypeError if it is neither a number nor None."""
    if seconds is None or (isinstance(seconds, int | float) and seconds == seconds):  # NaN is not
        return seconds
    raise TypeError(f"deadline_s takes a number of seconds, or None, not {seconds!r}")
