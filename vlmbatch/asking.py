"""One image, from its reference to its result: prepare, ask, ask again. Knows no concrete part."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    ImageError,
    RejectedError,
    UnavailableError,
    VlmbatchError,
)
from vlmbatch.events import RetryScheduled
from vlmbatch.protocols import Backend, Observer, Outages, Retries, Slots, Source
from vlmbatch.records import (
    Completion,
    Endpoint,
    Failure,
    FileStamp,
    ImageFacts,
    ImageRef,
    PreparedImage,
    Request,
    Result,
)

FREE_WAITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is the same for every image: who is asked, what, in which run."""

    endpoint: Endpoint
    run: str
    question: Request


class Draft:
    """One image on its way to a result."""

    def __init__(self, ref: ImageRef, question: Request) -> None:
        self.ref = ref
        self.request = replace(question, prompt=ref.prompt or question.prompt)
        self.stamp: FileStamp | None = None
        self.prepared: PreparedImage | None = None
        self.attempts = 0
        self.free_waits = 0
        self.bad_answer: BadAnswerError | None = None
        self.warnings: tuple[str, ...] = ()
        self.started_at = datetime.now(UTC)
        self.began = time.monotonic()

    def picture(self, prepared: PreparedImage) -> None:
        """Put a newly prepared picture into the request."""
        self.prepared = prepared
        self.request = replace(self.request, images=(prepared,))
        self.warnings += tuple(w for w in prepared.warnings if w not in self.warnings)

    def result(self, job: Job, outcome: Completion | Failure) -> Result:
        """The result with this outcome."""
        return Result(
            id=self.ref.id,
            endpoint=job.endpoint,
            run=job.run,
            started_at=self.started_at,
            duration_s=time.monotonic() - self.began,
            completion=outcome if isinstance(outcome, Completion) else None,
            failure=outcome if isinstance(outcome, Failure) else None,
            image=ImageFacts.of(self.stamp, self.prepared),
            attempts=self.attempts,
            warnings=self.warnings,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Brings one image after the other to its result; many at once.

    `prepare` turns file bytes into a picture whose longest side is at most the given number of
    pixels, or what the options say where that is None; it blocks, and runs in `threads`. `in_flight`
    holds the tasks that have a request at the endpoint, or an answer that is not written yet.
    """

    job: Job
    source: Source
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
        def work() -> tuple[FileStamp, PreparedImage]:
            draft.stamp = self.source.stamp(draft.ref)
            image = self.source.read(draft.ref)
            draft.stamp = image.stamp
            return image.stamp, self.prepare(image.data, longest)

        loop = asyncio.get_running_loop()
        try:
            draft.stamp, prepared = await loop.run_in_executor(self.threads, work)
        except OSError as error:  # a trouble of an image is an ImageError; this one is the machine's
            raise VlmbatchError(
                f"{draft.ref.id}: {error.strerror or error}; give the run more room (ulimit -n), "
                "or lower --concurrency, and run the same command again"
            ) from error
        draft.picture(prepared)

    async def _ask(self, draft: Draft) -> Completion:
        def on_retry(attempt: int, delay_s: float, error: BackendError) -> None:
            self.notify(
                RetryScheduled(
                    id=draft.ref.id, attempt=attempt, delay_s=delay_s, kind=error.kind, message=str(error)
                )
            )

        async for attempt in self.retries.attempts(on_retry):
            with attempt:
                draft.attempts += 1
                await self._change(draft)
                try:
                    return await self._answer(draft)
                except BadAnswerError as error:
                    draft.bad_answer = error
                    raise
        raise AssertionError("retries end with an answer or an error")

    async def _answer(self, draft: Draft) -> Completion:
        """One attempt. Waiting for an endpoint that is away costs none, FREE_WAITS times at most."""
        while True:
            await self.outages.ready()
            try:
                return await self._complete(draft)
            except UnavailableError as error:
                draft.free_waits += 1
                if draft.free_waits > FREE_WAITS:  # others are answered meanwhile, or patience had ended
                    raise RejectedError(str(error), kind=error.kind, retryable=True) from error
                await self.outages.outage(error)

    async def _complete(self, draft: Draft) -> Completion:
        """One request. Whoever has an answer stays in flight until it is written."""
        task = asyncio.current_task()
        async with self.slots.slot():
            self.in_flight.add(task)
            draft.started_at, draft.began = datetime.now(UTC), time.monotonic()
            try:
                completion = await self.backend.complete(draft.request)
            except BackendError as error:
                if not isinstance(error, UnavailableError):
                    self.outages.answered()
                self.in_flight.discard(task)
                if self.stop.is_set() and not isinstance(error, (RejectedError, FatalBackendError)):
                    raise asyncio.CancelledError from error  # nothing is lost: the next run asks
                raise
            self.outages.answered()
            return completion

    async def _change(self, draft: Draft) -> None:
        """Make this attempt a different one where the last ended with a bad answer."""
        error, draft.bad_answer = draft.bad_answer, None
        if error is None:
            return
        draft.request, warning = self.retries.ask_differently(draft.request, error, draft.attempts - 1)
        if error.change == "shrink" and draft.prepared:
            longest = max(draft.prepared.width, draft.prepared.height) // 2
            await self._prepare(draft, max(longest, 32))
        draft.warnings += (warning,)
