"""Brings one task to its result: prepare the images, send the request, retry it, or use a fallback."""

import asyncio

from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.pool import EndpointPool
from vlmbatch.endpoints.refusal_check import check_unavailable
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
from vlmbatch.pipeline.context_fit import ContextFit
from vlmbatch.pipeline.dedup import Deduplicator
from vlmbatch.pipeline.preparer import Preparer
from vlmbatch.pipeline.retry import RetryPolicy
from vlmbatch.pipeline.task import ImageTask, forget_trace
from vlmbatch.protocols import Observer
from vlmbatch.records import Completion, Failure, FallbackReason, Result


class ImageProcessor:
    """Brings tasks to their results, many at once."""

    def __init__(
        self,
        *,
        preparer: Preparer,
        fit: ContextFit,
        dedup: Deduplicator,
        pool: EndpointPool,
        retry: RetryPolicy,
        fallback_on: frozenset[FallbackReason],
        bugs: Bugs,
        notify: Observer,
        stop: asyncio.Event,
    ) -> None:
        """`fallback_on`: the reasons for which a fallback is used. Once `stop` is set, no request is sent."""
        self.pool = pool
        self.in_flight: set[asyncio.Task[object] | None] = set()
        """The asyncio tasks with a request at an endpoint, or with a result that is not yet passed on.

        The caller of process() removes its task once it has written or returned the result.
        """
        self._preparer = preparer
        self._fit = fit
        self._dedup = dedup
        self._retry = retry
        self._fallback_on = fallback_on
        self.bugs = bugs
        self._notify = notify
        self._stop = stop

    async def process(self, task: ImageTask) -> Result:
        """The result of this task; a failure of the image is a result too.

        Raises:
            VlmbatchError: no endpoint can answer, or the machine is out of descriptors or memory.
        """
        result = None
        try:
            known = await self._preparer.prepare(task)
            result = task.reused(known) if known else await self._complete_or_fall_back(task)
        except ImageError as error:
            forget_trace(error)
            result = task.result(Failure(kind=error.kind, message=str(error), retryable=error.retryable))
        except Exception as error:  # noqa: BLE001  # a bug must not cost more than this image
            result = task.result(task.failed_with(self.bugs.caught(error, task.id)))
        finally:
            self._dedup.release(task, result)
            self._fit.ended(task, answered=result is not None and result.ok)
        return result

    async def _complete_or_fall_back(self, task: ImageTask) -> Result:
        """The result from the endpoints, and if they fail, from one fallback after the other."""
        while True:
            try:
                return task.result(await self._complete_at_rank(task))
            except (FatalBackendError, UnavailableError) as error:  # no endpoint is left
                if task.failed is None:
                    raise
                return task.result(task.failed_with(error, for_now=True))
            except BackendError as error:
                reason = _reason(error)
                if reason not in self._fallback_on or task.asked_rank >= self.pool.last_rank:
                    return task.result(task.failed_with(error))
                task.fall_back(reason, error)

    async def _complete_at_rank(self, task: ImageTask) -> Completion:
        """The completion from the endpoints of the task's rank, with retries."""

        def on_retry(attempt: int, delay_s: float, error: BackendError) -> None:
            told = str(error)
            self._notify(
                RetryScheduled(id=task.id, attempt=attempt, delay_s=delay_s, kind=error.kind, message=told)
            )

        async def attempt() -> Completion:
            if task.bad_answer is not None:
                await self._change_request(task, task.bad_answer)
            try:
                return await self._attempt(task)
            except BadAnswerError as error:
                task.bad_answer = error
                raise
            except TransientError as error:
                if task.endpoint is not None:
                    await self.pool.failed(task.endpoint, error, task.question.scope or task.id)
                raise

        try:
            return await attempt()
        except BackendError as error:
            failed = [error]
        return await self._retry.retry(failed, attempt, on_retry, lambda: task.crashes.refunded)

    async def _attempt(self, task: ImageTask) -> Completion:
        """One attempt. Waiting for an endpoint that is down or busy costs none."""
        while True:
            task.steps.begin("wait")
            async with self.pool.slot(task.rank, task.crashes, task.endpoint) as endpoint:
                if not endpoint.is_open:  # it was lost while this task waited to be alone
                    continue
                task.attempt_at(endpoint, self.pool.first_away() if endpoint.rank > task.rank else None)
                await self._fit.keep_limit(task, endpoint)
                try:
                    return await self._complete(task, endpoint)
                except StaleConnectionError:
                    if task.stale:
                        raise
                    task.stale = True
                    unavailable = None
                except UnavailableError as error:
                    await check_unavailable(task.crashes, endpoint.backend, task.request, error)
                    unavailable = error
                except (FatalBackendError, RejectedError) as error:
                    if task.changed_after and error.kind in ("rejected", "bad_config"):
                        forget_trace(error)
                        raise task.changed_after from error  # only the change is refused
                    if isinstance(error, RejectedError):
                        raise
                    self.pool.lose(endpoint, error)
                    unavailable = None
            task.attempts -= 1  # only a free attempt comes here
            if unavailable is not None:
                forget_trace(unavailable)
                await self.pool.unavailable(endpoint, unavailable, task.crashes.waits)

    async def _complete(self, task: ImageTask, endpoint: PooledEndpoint) -> Completion:
        """Send one request. A task with a completion stays in flight until its result is passed on."""
        if self._stop.is_set():  # no image is lost: the next run sends it
            raise asyncio.CancelledError
        current = asyncio.current_task()
        self.in_flight.add(current)
        task.steps.ask(endpoint.identity, task.request.generation)
        alone, downs = task.crashes.suspect or endpoint.limiter.limit == 1, endpoint.breaker.downs
        try:
            async with endpoint.in_flight.request():
                completion = await endpoint.backend.complete(task.request)
            completion = await task.question.read(completion)
        except BackendError as error:
            error = task.doubts.judged(self.pool, endpoint, error)
            task.steps.end(error.kind)
            task.spend(error.cost)
            self._fit.refused(task, endpoint, error)
            self._report_failure(task, endpoint, error, alone, downs)
            self.in_flight.discard(current)
            if self._stop.is_set() and not isinstance(error, (RejectedError, FatalBackendError)):
                raise asyncio.CancelledError from error  # the next run sends it again
            raise error
        task.steps.end(completion=completion)
        task.doubts.answered(self.pool, endpoint)
        self.pool.answered(endpoint)
        return completion

    def _report_failure(
        self, task: ImageTask, endpoint: PooledEndpoint, error: BackendError, alone: bool, downs: int
    ) -> None:
        """Report a failed request to the parts that watch the endpoint and the task."""
        if isinstance(error, (RejectedError, BadAnswerError)):
            self.pool.answered(endpoint)
        elif error.kind in ("busy", "timeout", "crash"):
            endpoint.limiter.overloaded(is_busy=error.kind == "busy")
        if isinstance(error, TransientError):
            counted = task.stale or not isinstance(error, StaleConnectionError)
            task.crashes.breaker = endpoint.breaker
            task.crashes.failed(error.kind, alone=alone, counted=counted, downs=downs)

    async def _change_request(self, task: ImageTask, error: BadAnswerError) -> None:
        """Change the request, since the last attempt ended with this bad answer."""
        forget_trace(error)
        task.bad_answer, task.changed_after = None, error
        task.request, warning = self._retry.ask_differently(task.request, error, task.counted_attempts)
        await self._fit.shrink(task, error)
        task.warnings += (warning,)


def _reason(error: BackendError) -> FallbackReason:
    """The reason to use a fallback after this error."""
    if isinstance(error, BadAnswerError):
        return "bad-answer"
    return "rejected" if isinstance(error, RejectedError) and not error.retryable else "unavailable"
