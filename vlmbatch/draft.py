"""One image on its way to a result: what is asked about it, and what has happened so far."""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from vlmbatch.errors import BadAnswerError
from vlmbatch.images import FileStamp, ImageFacts, ImageRef, PreparedImage
from vlmbatch.records import Answered, Completion, Endpoint, Failure, Request, Result
from vlmbatch.trail import Trail


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
        self.sha256: str | None = None
        self.key: tuple[str, str] | None = None
        self.prepared: PreparedImage | None = None
        self.attempts = 0
        self.refunds = 0
        self.free_waits = 0
        self.stale = False
        self.trail = Trail()
        self.bad_answer: BadAnswerError | None = None
        self.warnings: tuple[str, ...] = ()
        self.started_at = datetime.now(UTC)
        self.began = time.monotonic()

    def picture(self, prepared: PreparedImage) -> None:
        """Put a newly prepared picture into the request."""
        self.prepared = prepared
        self.request = replace(self.request, images=(prepared,))
        self.warnings += tuple(w for w in prepared.warnings if w not in self.warnings)

    def drop_picture(self) -> None:
        """Let go of the picture, which nobody needs any more.

        An error that was raised over a draft holds it in a cycle, and until Python finds that, the pictures
        of hundreds of images that are done would fill memory.
        """
        self.prepared = None
        self.request = replace(self.request, images=())

    def repeated(self, job: Job, known: Answered) -> Result:
        """The result with what came of it before, which costs nothing now."""
        outcome, is_own = known.outcome, known.id == self.ref.id
        completion = outcome if isinstance(outcome, Completion) else None
        return Result(
            id=self.ref.id,
            endpoint=job.endpoint,
            run=job.run,
            started_at=self.started_at,
            duration_s=time.monotonic() - self.began,
            completion=completion,
            failure=outcome if isinstance(outcome, Failure) else None,
            image=known.image.stamped(self.stamp),
            warnings=completion.warnings if completion else (),
            duplicate_of=None if is_own else known.id,
            cached=known.id is None or is_own,
        )

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
            image=ImageFacts.of(self.stamp, self.sha256, self.prepared),
            attempts=self.attempts,
            warnings=self.warnings + (outcome.warnings if isinstance(outcome, Completion) else ()),
        )
