"""One image, from its reference to its result: prepare, ask, ask again. Knows no concrete part."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from vlmbatch.draft import Draft, Job
from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    ImageError,
    RejectedError,
    StaleConnectionError,
    TransientError,
    UnavailableError,
)
from vlmbatch.events import Notice, RetryScheduled
from vlmbatch.protocols import Backend, Observer, Outages, Retries, Room, Slots, Source
from vlmbatch.records import (
    Completion,
    Failure,
    FileStamp,
    ImageRef,
    PreparedImage,
    Result,
)

FREE_WAITS = 20
SLOW_S = 60.0


class SlowWatch:
    """Inside its ``with`` block, says once which image a thread has worked on for very long.

    Its disk or its decoder may hang, and nothing else would tell which of many it is.
    """

    def __init__(self, image: str, notify: Observer, *, slow_s: float = SLOW_S) -> None:
        """`began`, in monotonic seconds, is set by the thread when it begins."""
        self.began: float | None = None
        self._image = image
        self._notify = notify
        self._slow_s = slow_s

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._slow_s, self._look)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left_s = self._slow_s if self.began is None else self.began + self._slow_s - time.monotonic()
        if left_s > 0:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._look)
        else:
            told = f"still being read and decoded after {self._slow_s:g} s; --exclude leaves it out"
            self._notify(Notice(message=f"{self._image}: {told}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Brings one image after the other to its result; many at once.

    `prepare` turns file bytes into a picture whose longest side is at most the given number of
    pixels, or what the options say where that is None; it blocks, and runs in `threads`, as reading
    does, for whose bytes `room_to_read` waits. `in_flight` holds the tasks that have a request at the
    endpoint, or an answer that is not written yet.
    """

    job: Job
    source: Source
    room_to_read: Room
    prepare: Callable[[bytes, int | None], PreparedImage]
    backend: Backend
    slots: Slots
    outages: Outages
    retries: Retries
    notify: Observer
    threads: ThreadPoolExecutor
    stop: asyncio.Event
    in_flight: set["asyncio.Task[None] | None"]

    async def answer(self, ref: ImageRef) -> Result:
        """The result for this image; a failure of the image is a result too.

        Raises:
            VlmbatchError: what ends the whole run: a fatal endpoint, or one that stays away.
        """
        draft = Draft(ref, self.job.question)
        try:
            await self._prepare(draft, None)
            outcome: Completion | Failure = await self._ask(draft)
        except ImageError as error:
            outcome = Failure(kind=error.kind, message=str(error), retryable=error.retryable)
        except (FatalBackendError, UnavailableError):
            raise
        except BackendError as error:
            outcome = Failure(
                kind=error.kind, message=str(error), retryable=error.retryable, partial=error.partial
            )
        return draft.result(self.job, outcome)

    async def _prepare(self, draft: Draft, longest: int | None) -> None:
        watch = SlowWatch(draft.ref.id, self.notify)

        def work() -> tuple[FileStamp, PreparedImage]:
            watch.began = time.monotonic()
            draft.stamp = self.source.stamp(draft.ref)
            with self.room_to_read(draft.stamp.bytes if draft.stamp else 0):
                image = self.source.read(draft.ref)
                draft.stamp = image.stamp
                return image.stamp, self.prepare(image.data, longest)

        loop = asyncio.get_running_loop()
        with watch:
            draft.stamp, prepared = await loop.run_in_executor(self.threads, work)
        draft.picture(prepared)

    async def _ask(self, draft: Draft) -> Completion:
        def on_retry(attempt: int, delay_s: float, error: BackendError) -> None:
            self.notify(
                RetryScheduled(
                    id=draft.ref.id, attempt=attempt, delay_s=delay_s, kind=error.kind, message=str(error)
                )
            )

        async for attempt in self.retries.attempts(on_retry, lambda: draft.refunds):
            with attempt:
                await self._change(draft)
                try:
                    return await self._attempt(draft)
                except BadAnswerError as error:
                    draft.bad_answer = error
                    raise
                except TransientError as error:
                    await self.outages.failed(error, draft.ref.id)
                    raise
        raise AssertionError("retries end with an answer or an error")

    async def _attempt(self, draft: Draft) -> Completion:
        """One attempt. Waiting for an endpoint that is away costs none, FREE_WAITS times at most."""
        while True:
            await self.outages.ready()
            self._look_back(draft)
            async with self.slots.slot(alone=draft.trail.suspect):
                if not self.outages.up:  # it went away while this image waited for its slot
                    continue
                draft.attempts += 1
                try:
                    return await self._complete(draft)
                except StaleConnectionError:
                    if draft.stale:
                        raise
                    draft.stale = True
                    turned_away = None
                except UnavailableError as error:
                    turned_away = error
            draft.attempts -= 1
            if turned_away is not None:
                await self._wait(draft, turned_away)

    async def _wait(self, draft: Draft, error: UnavailableError) -> None:
        """Wait until the endpoint may take this image; the image does not pay for it."""
        draft.free_waits += 1
        if draft.free_waits > FREE_WAITS:  # others are answered meanwhile, or patience had ended
            raise RejectedError(str(error), kind=error.kind, retryable=True) from error
        await self.outages.unavailable(error, draft.free_waits)

    def _look_back(self, draft: Draft) -> None:
        """Give back the attempts that went down with the endpoint, and judge the image by its crashes."""
        lost = draft.trail.refund(self.outages.downs)
        draft.attempts -= lost
        draft.refunds += lost
        if draft.trail.guilty:
            times = draft.trail.told + draft.trail.found
            raise RejectedError(
                f"the engine crashes over this image: {times} times while nothing else was asked; "
                "--retry-failed asks again, a smaller --max-size may help",
                kind="crash",
            )

    async def _complete(self, draft: Draft) -> Completion:
        """One request. Whoever has an answer stays in flight until it is written."""
        task = asyncio.current_task()
        self.in_flight.add(task)
        draft.started_at, draft.began = datetime.now(UTC), time.monotonic()
        alone, downs = draft.trail.suspect or self.slots.limit == 1, self.outages.downs
        try:
            completion = await self.backend.complete(draft.request)
        except BackendError as error:
            self._hear(draft, error, alone, downs)
            self.in_flight.discard(task)
            if self.stop.is_set() and not isinstance(error, (RejectedError, FatalBackendError)):
                raise asyncio.CancelledError from error  # nothing is lost: the next run asks
            raise
        self.outages.answered()
        self.slots.answered()
        return completion

    def _hear(self, draft: Draft, error: BackendError, alone: bool, downs: int) -> None:
        """Let the guards know how a request failed."""
        if isinstance(error, (RejectedError, BadAnswerError)):
            self.outages.answered()
            self.slots.answered()
        elif error.kind in ("busy", "timeout", "crash"):
            self.slots.overloaded()
        if isinstance(error, TransientError):
            counted = draft.stale or not isinstance(error, StaleConnectionError)
            draft.trail.broke(error.kind, alone=alone, counted=counted, downs=downs)

    async def _change(self, draft: Draft) -> None:
        """Make this attempt a different one where the last ended with a bad answer."""
        error, draft.bad_answer = draft.bad_answer, None
        if error is None:
            return
        draft.request, warning = self.retries.ask_differently(draft.request, error, draft.attempts)
        if error.change == "shrink" and draft.prepared:
            longest = max(draft.prepared.width, draft.prepared.height) // 2
            await self._prepare(draft, max(longest, 32))
        draft.warnings += (warning,)
