"""One image, from its reference to its result: prepare, ask, ask again. Knows no concrete part."""

import asyncio
import time
from collections.abc import Awaitable, Callable
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
from vlmbatch.events import RetryScheduled
from vlmbatch.images import ImageRef
from vlmbatch.protocols import Answers, Backend, Observer, Outages, Retries, Slots
from vlmbatch.records import Answered, Completion, Failure, Result

FREE_WAITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Brings one image after the other to its result; many at once.

    `look` gets a draft's picture ready, or finds its answer; `shrink` makes its picture anew, with a longest
    side of so many pixels. `in_flight` holds the tasks that have a request at the endpoint, or an answer
    that is not written yet.
    """

    job: Job
    look: Callable[[Draft], Awaitable[Answered | None]]
    shrink: Callable[[Draft, int], Awaitable[None]]
    answers: Answers
    backend: Backend
    slots: Slots
    outages: Outages
    retries: Retries
    notify: Observer
    stop: asyncio.Event
    in_flight: set["asyncio.Task[None] | None"]

    async def answer(self, ref: ImageRef) -> Result:
        """The result for this image; a failure of the image is a result too.

        Raises:
            VlmbatchError: what ends the whole run: a fatal endpoint, or one that stays away.
        """
        draft, result = Draft(ref, self.job.question), None
        try:
            known = await self.look(draft)
            result = draft.repeated(self.job, known) if known else await self._asked(draft)
        except ImageError as error:
            failure = Failure(kind=error.kind, message=str(error), retryable=error.retryable)
            result = draft.result(self.job, failure)
        finally:
            self.answers.release(draft, result)
            draft.drop_picture()
        return result

    async def _asked(self, draft: Draft) -> Result:
        """The result of asking about this picture."""
        try:
            outcome: Completion | Failure = await self._ask(draft)
        except (FatalBackendError, UnavailableError):
            raise
        except BackendError as error:
            outcome = Failure(
                kind=error.kind, message=str(error), retryable=error.retryable, partial=error.partial
            )
        return draft.result(self.job, outcome)

    async def _ask(self, draft: Draft) -> Completion:
        def on_retry(attempt: int, delay_s: float, error: BackendError) -> None:
            self.notify(
                RetryScheduled(
                    id=draft.ref.id, attempt=attempt, delay_s=delay_s, kind=error.kind, message=str(error)
                )
            )

        with self.retries.attempts(on_retry, lambda: draft.refunds) as attempts:
            async for attempt in attempts:
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
            await self.shrink(draft, max(longest, 32))
        draft.warnings += (warning,)
