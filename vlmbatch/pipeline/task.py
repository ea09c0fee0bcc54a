"""One task: one or more images on their way to a result, and what has happened so far."""

from collections.abc import Sequence
from dataclasses import replace

from vlmbatch.endpoints.crash_history import CrashHistory
from vlmbatch.endpoints.doubts import Doubts
from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.picture_limits import Shrunk
from vlmbatch.errors import BackendError, BadAnswerError, VlmbatchError
from vlmbatch.images import FileStamp, ImageFacts, ImageRef, PreparedImage, SourceImage, unread
from vlmbatch.pipeline.dedup import Key
from vlmbatch.pipeline.question import Question
from vlmbatch.pipeline.step_log import StepLog
from vlmbatch.protocols import Source
from vlmbatch.records import (
    Answered,
    Completion,
    Endpoint,
    Failure,
    Fallback,
    FallbackReason,
    Result,
    content_of,
)


class ImageTask:
    """One task. In a run it has one image; in a session it may have several."""

    def __init__(
        self,
        images: Sequence[ImageRef],
        source: Source,
        question: Question,
        *,
        id: str | None = None,  # noqa: A002  # as in records
        reuse: bool = True,
    ) -> None:
        """`source` reads the images. Without `reuse` no stored answer counts. `id` defaults to theirs."""
        self.images = tuple(images)
        self.id = " + ".join(image.id for image in self.images) if id is None else id
        self.source = source
        self.question = question
        self.reuse = reuse
        self.request = question.request
        self.stamps: list[FileStamp | None] = [None] * len(self.images)
        self.sha256s: list[str] = []
        self.pictures: list[PreparedImage] = []
        self.key: Key | None = None
        """Content and question, once the images have been read."""
        self.attempts = 0
        self.stale = False
        """Whether a pooled connection was found closed; the first retry for that costs no attempt."""
        self.crashes = CrashHistory()
        self.doubts = Doubts()
        self.rank = 0
        """The rank of the endpoints to try now: 1 and more are fallbacks."""
        self.endpoint: PooledEndpoint | None = None
        """The endpoint of the last attempt."""
        self.failed: Failure | None = None
        """The failure at the endpoints before the fallbacks."""
        self.fallback: Fallback | None = None
        self.spent: float | None = None
        """Cost of all attempts so far in US dollars; None if unknown."""
        self.bad_answer: BadAnswerError | None = None
        self.shrunk: Shrunk | None = None
        self.changed_after: BadAnswerError | None = None
        """The bad answer after which the request was changed."""
        self.warnings: tuple[str, ...] = ()
        self.steps = StepLog()

    @property
    def counted_attempts(self) -> int:
        """Attempts that count: not those lost to a crash of the engine."""
        return self.attempts - self.crashes.refunded

    @property
    def asked_rank(self) -> int:
        """The rank of the endpoint of the last attempt."""
        return self.rank if self.endpoint is None else max(self.rank, self.endpoint.rank)

    def set_content(self, images: Sequence[SourceImage]) -> None:
        """The images have been read; the first time, that gives the task its key."""
        self.stamps = [image.stamp for image in images]
        self.sha256s = [image.sha256 for image in images]
        if self.key is None:
            asked = self.question
            self.key = Key(content_of(self.sha256s), asked.run, asked.name, asked.scope)

    def set_pictures(self, pictures: Sequence[PreparedImage]) -> None:
        """Put newly prepared pictures into the request."""
        self.pictures = list(pictures)
        self.request = replace(self.request, images=tuple(pictures))
        for picture in pictures:
            self.warnings += tuple(w for w in picture.warnings if w not in self.warnings)

    def spend(self, cost: float | None) -> None:
        """Add the cost of an attempt."""
        if cost is not None:
            self.spent = (self.spent or 0.0) + cost

    def attempt_at(self, endpoint: PooledEndpoint, away: BackendError | None) -> None:
        """Begin an attempt at this endpoint; `away` says why the endpoints of rank 0 are down, if so."""
        self.endpoint, self.crashes.rank = endpoint, endpoint.rank
        self.attempts += 1
        if self.rank == 0:
            self.fallback = None if away is None else _fallback("unavailable", away, self.question.endpoint)

    def fall_back(self, reason: FallbackReason, error: BackendError) -> None:
        """Use the endpoints of the next rank from now on; retries and waits start again."""
        self.failed = self.failed_with(error)
        self.fallback = self.fallback or _fallback(reason, error, self._last_endpoint)
        self.rank = self.asked_rank + 1
        self.request = replace(self.question.request, images=self.request.images)
        self.attempts, self.crashes = self.counted_attempts, CrashHistory()
        self.bad_answer, self.changed_after, self.stale = None, None, False

    def failed_with(self, error: BackendError, *, for_now: bool = False) -> Failure:
        """This error as a failure, after that of earlier endpoints; `for_now`: the next run retries."""
        forget_trace(error)
        for_now = for_now or (self.fallback is not None and self.fallback.reason == "unavailable")
        retryable = error.retryable or for_now
        if self.failed is None:
            partial = error.partial or (self.changed_after.partial if self.changed_after else None)
            return Failure(kind=error.kind, message=str(error), retryable=retryable, partial=partial)
        return replace(
            self.failed,
            message=f"{self.failed.message}; the fallback: {error}",
            retryable=self.failed.retryable or retryable,
        )

    def reused(self, known: Answered) -> Result:
        """The result with an earlier answer, which costs nothing now."""
        outcome, is_own = known.outcome, known.id == self.id
        completion = outcome if isinstance(outcome, Completion) else None
        return Result(
            id=self.id,
            endpoint=known.endpoint or self.question.endpoint,
            run=self.question.run,
            prompt=self.question.name,
            started_at=self.steps.started_at,
            duration_s=self.steps.duration_s,
            completion=completion,
            failure=outcome if isinstance(outcome, Failure) else None,
            image=known.image.stamped(self.stamps[0]),
            more_images=tuple(
                facts.stamped(stamp) for facts, stamp in zip(known.more_images, self.stamps[1:], strict=True)
            ),
            warnings=tuple(
                dict.fromkeys((*(completion.warnings if completion else ()), *unread(known.image.frames)))
            ),
            duplicate_of=None if is_own else known.id,
            cached=known.id is None or is_own,
            fallback=known.fallback,
        )

    def result(self, outcome: Completion | Failure) -> Result:
        """The result with this outcome."""
        self.spend(outcome.cost if isinstance(outcome, Completion) else None)
        image, *more_images = self._facts()
        return Result(
            id=self.id,
            endpoint=self._last_endpoint,
            run=self.question.run,
            prompt=self.question.name,
            started_at=self.steps.started_at,
            duration_s=self.steps.duration_s,
            completion=outcome if isinstance(outcome, Completion) else None,
            failure=outcome if isinstance(outcome, Failure) else None,
            image=image,
            more_images=tuple(more_images),
            attempts=self.counted_attempts,
            warnings=self.warnings + (outcome.warnings if isinstance(outcome, Completion) else ()),
            fallback=self.fallback,
            reduced=any(picture.is_reduced for picture in self.pictures),
            cost=None if self.spent is None else round(self.spent, 8),
        )

    @property
    def _last_endpoint(self) -> Endpoint:
        """The endpoint of the last attempt, else that of the question."""
        return self.question.endpoint if self.endpoint is None else self.endpoint.identity

    def _facts(self) -> list[ImageFacts]:
        """The facts of each image, as far as they are known."""
        facts = []
        for at, stamp in enumerate(self.stamps):
            sha256 = self.sha256s[at] if at < len(self.sha256s) else None
            picture = self.pictures[at] if at < len(self.pictures) else None
            facts.append(ImageFacts.of(stamp, sha256, picture))
        return facts


def forget_trace(error: VlmbatchError) -> None:
    """Drop the frames that an error came through: they hold the pictures, and often the error itself.

    Until Python collects such a cycle, the pictures of hundreds of failed images would fill memory.
    """
    error.with_traceback(None)


def _fallback(reason: FallbackReason, error: BackendError, asked: Endpoint) -> Fallback:
    return Fallback(
        reason=reason,
        kind=error.kind,
        message=str(error),
        backend=asked.backend,
        endpoint=asked.url,
        model=asked.model,
    )
