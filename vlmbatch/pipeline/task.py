"""One image on its way to a result: what is asked about it, and what has happened so far."""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from vlmbatch.errors import BackendError, BadAnswerError, FailureKind
from vlmbatch.guard_protocols import PooledEndpoint
from vlmbatch.images import FileStamp, ImageFacts, ImageRef, PreparedImage
from vlmbatch.records import (
    Answered,
    Completion,
    Endpoint,
    Failure,
    Fallback,
    FallbackReason,
    Request,
    Result,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is the same for every image: who is asked, what, in which run."""

    endpoint: Endpoint
    run: str
    question: Request


class ImageTask:
    """One image on its way to a result."""

    def __init__(self, ref: ImageRef, question: Request) -> None:
        self.ref = ref
        self.request = replace(question, prompt=ref.prompt or question.prompt)
        self.stamp: FileStamp | None = None
        self.sha256: str | None = None
        self.key: tuple[str, str] | None = None
        self.prepared: PreparedImage | None = None
        self.attempts = 0
        self.refunds = 0
        self.free_waits = 0
        self.stale = False
        self.trail = CrashHistory()
        self.rank = 0
        """Who is to be asked first now: 1 and more are fallbacks."""
        self.lane: PooledEndpoint | None = None
        """Who was asked last."""
        self.broke_at: PooledEndpoint | None = None
        """Who failed in passing last, as the trail knows."""
        self.failed: Failure | None = None
        """How those failed that were asked before the fallbacks."""
        self.fallback: Fallback | None = None
        self.spent: float | None = None
        """US dollars for answers that were of no use; None where nobody knows."""
        self.bad_answer: BadAnswerError | None = None
        self.warnings: tuple[str, ...] = ()
        self.started_at = datetime.now(UTC)
        self.began = time.monotonic()

    def picture(self, prepared: PreparedImage) -> None:
        """Put a newly prepared picture into the request."""
        self.prepared = prepared
        self.request = replace(self.request, images=(prepared,))
        self.warnings += tuple(w for w in prepared.warnings if w not in self.warnings)

    def spend(self, cost: float | None) -> None:
        """Add what an attempt cost."""
        if cost is not None:
            self.spent = (self.spent or 0.0) + cost

    def drop_picture(self) -> None:
        """Let go of the picture, which nobody needs any more.

        An error that was raised over a draft holds it in a cycle, and until Python finds that, the pictures
        of hundreds of images that are done would fill memory.
        """
        self.prepared = None
        self.request = replace(self.request, images=())

    def ask(self, job: Job, lane: PooledEndpoint, away: BackendError | None) -> None:
        """Begin an attempt at this endpoint; `away` is why those of the draft's rank are not asked."""
        self.lane = lane
        self.attempts += 1
        if self.rank == 0:
            self.fallback = None if away is None else _fallback("unavailable", away, job.endpoint)

    def fall_back(self, job: Job, reason: FallbackReason, error: BackendError) -> None:
        """Ask those of the next rank from now on, as if they were the first."""
        asked = job.endpoint if self.lane is None else self.lane.endpoint
        self.failed = self.failed_with(error)
        self.fallback = self.fallback or _fallback(reason, error, asked)
        self.rank = self.asked_rank + 1
        self.request = replace(job.question, prompt=self.request.prompt, images=self.request.images)
        self.trail, self.broke_at, self.bad_answer = CrashHistory(), None, None
        self.refunds, self.free_waits, self.stale = 0, 0, False

    @property
    def asked_rank(self) -> int:
        """The rank of who was asked last."""
        return self.rank if self.lane is None else max(self.rank, self.lane.rank)

    def failed_with(self, error: BackendError, *, for_now: bool = False) -> Failure:
        """The failure that this error is, after those of others; `for_now`: the next run asks again."""
        for_now = for_now or (self.fallback is not None and self.fallback.reason == "unavailable")
        retryable = error.retryable or for_now
        if self.failed is None:
            return Failure(kind=error.kind, message=str(error), retryable=retryable, partial=error.partial)
        return replace(
            self.failed,
            message=f"{self.failed.message}; the fallback: {error}",
            retryable=self.failed.retryable or retryable,
        )

    def repeated(self, job: Job, known: Answered) -> Result:
        """The result with what came of it before, which costs nothing now."""
        outcome, is_own = known.outcome, known.id == self.ref.id
        completion = outcome if isinstance(outcome, Completion) else None
        return Result(
            id=self.ref.id,
            endpoint=known.endpoint or job.endpoint,
            run=job.run,
            started_at=self.started_at,
            duration_s=time.monotonic() - self.began,
            completion=completion,
            failure=outcome if isinstance(outcome, Failure) else None,
            image=known.image.stamped(self.stamp),
            warnings=completion.warnings if completion else (),
            duplicate_of=None if is_own else known.id,
            cached=known.id is None or is_own,
            fallback=known.fallback,
        )

    def result(self, job: Job, outcome: Completion | Failure) -> Result:
        """The result with this outcome."""
        self.spend(outcome.cost if isinstance(outcome, Completion) else None)
        return Result(
            id=self.ref.id,
            endpoint=job.endpoint if self.lane is None else self.lane.endpoint,
            run=job.run,
            started_at=self.started_at,
            duration_s=time.monotonic() - self.began,
            completion=outcome if isinstance(outcome, Completion) else None,
            failure=outcome if isinstance(outcome, Failure) else None,
            image=ImageFacts.of(self.stamp, self.sha256, self.prepared),
            attempts=self.attempts,
            warnings=self.warnings + (outcome.warnings if isinstance(outcome, Completion) else ()),
            fallback=self.fallback,
            cost=None if self.spent is None else round(self.spent, 8),
        )


def _fallback(reason: FallbackReason, error: BackendError, asked: Endpoint) -> Fallback:
    return Fallback(
        reason=reason,
        kind=error.kind,
        message=str(error),
        backend=asked.backend,
        endpoint=asked.url,
        model=asked.model,
    )


BROKEN_OFF: frozenset[FailureKind] = frozenset(("connection", "server_error"))
"""How a request ends whose engine dies without a word."""
TOLD = 2
"""So many crashes that the engine tells of, and nothing else was asked, are the image's doing."""
FOUND = 4
"""So many times to find it gone without a word: it may have been restarted, and where that happens every few
seconds (benchmarks/soak.py), it meets one image twice by chance."""


@dataclass(slots=True)
class CrashHistory:
    """The crashes of one image's requests.

    An engine that says that it crashed did; one that breaks off a request and is then found gone did,
    too. All that were in flight become suspects, which are asked about one at a time; `told` and `found`
    count those at which this one was alone. A restart of the server looks like a crash, so that one alone
    is no proof.
    """

    suspect: bool = False
    told: int = 0
    found: int = 0
    _downs: int | None = None
    _alone: bool = False
    _cost: int = 0

    @property
    def guilty(self) -> bool:
        """Whether the engine crashes because of this image."""
        return self.told >= TOLD or self.told + self.found >= FOUND

    def broke(self, kind: FailureKind, *, alone: bool, counted: bool, downs: int) -> None:
        """Hear how a request failed.

        `alone`: nobody else was asked; `counted`: it cost the image an attempt; `downs`: how often so far
        nobody had been there when it was sent.
        """
        if kind == "crash":
            self._crashed()
            self.told += alone
        elif kind in BROKEN_OFF:
            self._cost = counted + (self._cost if self._downs == downs else 0)
            self._downs, self._alone = downs, alone

    def refund(self, downs: int) -> int:
        """How many attempts were lost because the endpoint went down, as shows now that `downs` has grown.

        Asked before each request; told once, and counted as a crash.
        """
        if self._downs is None or downs <= self._downs:
            return 0
        self._crashed()
        self.found += self._alone
        return self._cost

    def _crashed(self) -> None:
        self._downs = None
        self.suspect = True
