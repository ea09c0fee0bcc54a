"""One image, from its reference to its result: prepare, ask, ask again or another. Knows no concrete part."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

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
from vlmbatch.guard_protocols import EndpointPool, PooledEndpoint, Retries
from vlmbatch.images import ImageRef
from vlmbatch.pipeline.task import ImageTask, Job
from vlmbatch.protocols import Deduplicator, Observer
from vlmbatch.records import Answered, Completion, Failure, FallbackReason, Result

FREE_WAITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProcessor:
    """Brings one image after the other to its result; many at once.

    `look` gets a draft's picture ready, or finds its answer; `shrink` makes its picture anew, with a longest
    side of so many pixels. `read` gives an answer its form, or refuses it. `fallback_on` are the reasons for
    which a fallback among the `lanes` is asked. `in_flight` holds the tasks that have a request at an
    endpoint, or an answer that is not written yet.
    """

    job: Job
    look: Callable[[ImageTask], Awaitable[Answered | None]]
    shrink: Callable[[ImageTask, int], Awaitable[None]]
    answers: Deduplicator
    lanes: EndpointPool
    read: Callable[[Completion], Completion]
    retries: Retries
    notify: Observer
    stop: asyncio.Event
    in_flight: set["asyncio.Task[None] | None"]
    fallback_on: frozenset[FallbackReason] = frozenset()

    async def answer(self, ref: ImageRef) -> Result:
        """The result for this image; a failure of the image is a result too.

        Raises:
            VlmbatchError: what ends the whole run: fatal endpoints, or such as stay away.
        """
        draft, result = ImageTask(ref, self.job.question), None
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

    async def _asked(self, draft: ImageTask) -> Result:
        """The result of asking about this picture, and where that fails, a fallback after the other."""
        while True:
            try:
                return draft.result(self.job, await self._ask(draft))
            except (FatalBackendError, UnavailableError) as error:
                if draft.failed is None:
                    raise
                return draft.result(self.job, draft.failed_with(error, for_now=True))
            except BackendError as error:
                reason = _reason(error)
                if reason not in self.fallback_on or draft.asked_rank >= self.lanes.last_rank:
                    return draft.result(self.job, draft.failed_with(error))
                draft.fall_back(self.job, reason, error)

    async def _ask(self, draft: ImageTask) -> Completion:
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
                        if draft.lane is not None:
                            await self.lanes.failed(draft.lane, error, draft.ref.id)
                        raise
        raise AssertionError("retries end with an answer or an error")

    async def _attempt(self, draft: ImageTask) -> Completion:
        """One attempt. Waiting for endpoints that are away costs none, FREE_WAITS times at most."""
        while True:
            async with self.lanes.turn(draft.rank, lambda: self._look_back(draft), draft.lane) as lane:
                if not lane.outages.up:  # it went away while this image waited to be alone
                    continue
                draft.ask(self.job, lane, self.lanes.first_away() if lane.rank > draft.rank else None)
                try:
                    return await self._complete(draft, lane)
                except StaleConnectionError:
                    if draft.stale:
                        raise
                    draft.stale = True
                    turned_away = None
                except UnavailableError as error:
                    turned_away = error
                except FatalBackendError as error:
                    self.lanes.closed(lane, error)
                    turned_away = None
            draft.attempts -= 1
            if turned_away is not None:
                await self._wait(draft, lane, turned_away)

    async def _wait(self, draft: ImageTask, lane: PooledEndpoint, error: UnavailableError) -> None:
        """Wait until an endpoint may take this image; the image does not pay for it."""
        draft.free_waits += 1
        if draft.free_waits > FREE_WAITS:  # others are answered meanwhile, or patience had ended
            raise RejectedError(str(error), kind=error.kind, retryable=True) from error
        await self.lanes.unavailable(lane, error, draft.free_waits)

    def _look_back(self, draft: ImageTask) -> bool:
        """Whether this image has to be alone: give back the attempts that went down with an endpoint.

        Raises:
            RejectedError: its crashes show that engines die of it.
        """
        if draft.broke_at is not None:
            lost = draft.trail.refund(draft.broke_at.outages.downs)
            draft.attempts -= lost
            draft.refunds += lost
        if draft.trail.guilty:
            times = draft.trail.told + draft.trail.found
            raise RejectedError(
                f"the engine crashes over this image: {times} times while nothing else was asked; "
                "--retry-failed asks again, a smaller --max-size may help",
                kind="crash",
            )
        return draft.trail.suspect

    async def _complete(self, draft: ImageTask, lane: PooledEndpoint) -> Completion:
        """One request. Whoever has an answer stays in flight until it is written."""
        task = asyncio.current_task()
        self.in_flight.add(task)
        draft.started_at, draft.began = datetime.now(UTC), time.monotonic()
        alone, downs = draft.trail.suspect or lane.slots.limit == 1, lane.outages.downs
        try:
            completion = self.read(await lane.backend.complete(draft.request))
        except BackendError as error:
            draft.spend(error.cost)
            self._hear(draft, lane, error, alone, downs)
            self.in_flight.discard(task)
            if self.stop.is_set() and not isinstance(error, (RejectedError, FatalBackendError)):
                raise asyncio.CancelledError from error  # nothing is lost: the next run asks
            raise
        self.lanes.answered(lane)
        return completion

    def _hear(
        self, draft: ImageTask, lane: PooledEndpoint, error: BackendError, alone: bool, downs: int
    ) -> None:
        """Let the guards know how a request failed."""
        if isinstance(error, (RejectedError, BadAnswerError)):
            self.lanes.answered(lane)
        elif error.kind in ("busy", "timeout", "crash"):
            lane.slots.overloaded()
        if isinstance(error, TransientError):
            counted = draft.stale or not isinstance(error, StaleConnectionError)
            draft.trail.broke(error.kind, alone=alone, counted=counted, downs=downs)
            draft.broke_at = lane

    async def _change(self, draft: ImageTask) -> None:
        """Make this attempt a different one where the last ended with a bad answer."""
        error, draft.bad_answer = draft.bad_answer, None
        if error is None:
            return
        draft.request, warning = self.retries.ask_differently(draft.request, error, draft.attempts)
        if error.change == "shrink" and draft.prepared:
            longest = max(draft.prepared.width, draft.prepared.height) // 2
            await self.shrink(draft, max(longest, 32))
        draft.warnings += (warning,)


def _reason(error: BackendError) -> FallbackReason:
    """Why somebody else shall be asked after this error."""
    if isinstance(error, BadAnswerError):
        return "bad-answer"
    return "rejected" if isinstance(error, RejectedError) and not error.retryable else "unavailable"
