"""The events that observers receive: one frozen value for each thing that happens in a run."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlmbatch.errors import FailureKind, VlmbatchError
from vlmbatch.records import Completion, Endpoint, Generation, Result, Summary

__all__ = [
    "BugFound",
    "ConcurrencyChanged",
    "EndpointPaused",
    "EndpointProven",
    "EndpointResumed",
    "Event",
    "ImageFinished",
    "ImageTraced",
    "ImagesSkipped",
    "Notice",
    "PreflightDelayed",
    "QueueMeasured",
    "RetryScheduled",
    "RunFinished",
    "RunStarted",
    "RunStopping",
    "SourceProblem",
    "TotalKnown",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightDelayed:
    """The preflight of an endpoint has not succeeded yet, and continues; `message` is the last reason.

    It is retried for up to `left_s` seconds. 0 means that no attempt has failed: an answer of the
    endpoint takes long.
    """

    endpoint: str
    message: str
    left_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The endpoint is found and the output is open. `adapts`: `concurrency` is only the initial limit.

    `others` are further endpoints that share the images, and `fallbacks` are used if these fail; both are
    texts for the user. `notes` tell the user about these endpoints. `away` has the URL of each that is
    down, and the reason, which a note has, too. `output` is where the records go: a file, `-` for standard
    output, or None if no records are written. If the records come from a job queue, the backend of `endpoint`
    is `queue`, its URL is that of Redis, and `concurrency` is 0.
    """

    endpoint: Endpoint
    run: str
    concurrency: int
    output: str | None
    adapts: bool = False
    others: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    away: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyChanged:
    """The new limit of requests at once, for all endpoints together."""

    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMeasured:
    """An endpoint reported how many requests it processes and how many wait, from all its clients."""

    endpoint: str
    running: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message for the user without effect on the run, for example that the output was repaired."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BugFound:
    """A bug of vlmbatch that the run survives; each is reported once. `trace` is its traceback."""

    message: str
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalKnown:
    """The number of images, once all folders are counted; sent only if the count ends before the run."""

    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesSkipped:
    """The number of images skipped so far, since an earlier run has done them."""

    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProblem:
    """A folder or entry that the source could not read; the output has no record of it."""

    path: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled:
    """An attempt failed; the next one follows in `delay_s` seconds."""

    id: str
    attempt: int
    delay_s: float
    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPaused:
    """The endpoint is down; it gets no request until it is up again or `give_up_s` seconds have passed.

    `others_up`: other endpoints still process images.
    """

    message: str
    give_up_s: float
    endpoint: str = ""
    others_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointResumed:
    """The endpoint answers again, after `paused_s` seconds."""

    paused_s: float
    endpoint: str = ""
    others_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointProven:
    """The proof of an endpoint has ended: images are sent from now on. The canary may have proved nothing."""


StepName = Literal["prepare", "wait", "ask"]
"""The steps of an image: preparing its pictures, waiting, and one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of an image; the times are in nanoseconds since 1970.

    `prepare` reads and prepares the pictures. `wait` waits for a slot, or for an endpoint that is down. It
    also has the pause before a retry, and the wait for the answer to an identical image. `ask` is a request.
    `error` is the kind of the failure that ended the step, or the name of an exception; None if it succeeded.
    """

    name: StepName
    start_ns: int
    end_ns: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskStep(Step):
    """The step `ask`: one request to one endpoint. `attempt` counts the requests of the image from 1.

    `completion` is None if the request failed.
    """

    endpoint: Endpoint
    generation: Generation
    attempt: int
    completion: Completion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTraced:
    """The steps of an image, one after the other; the times are in nanoseconds since 1970.

    It is sent in the asyncio task and the context (contextvars) of the image, before ImageFinished. `result`
    is None if the call of a session was cancelled or ended with an exception. `error` is the kind of the
    failure, or the name of that exception; None for an answer.
    """

    id: str
    start_ns: int
    end_ns: int
    steps: tuple[Step, ...]
    result: Result | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFinished:
    """An image got its record."""

    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStopping:
    """No further image starts; those in flight have `drain_s` seconds. `error` is the reason, if any."""

    drain_s: float
    error: VlmbatchError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The last event of every run that started."""

    summary: Summary


Event = (
    PreflightDelayed
    | RunStarted
    | ConcurrencyChanged
    | QueueMeasured
    | Notice
    | BugFound
    | TotalKnown
    | ImagesSkipped
    | SourceProblem
    | RetryScheduled
    | EndpointProven
    | EndpointPaused
    | EndpointResumed
    | ImageTraced
    | ImageFinished
    | RunStopping
    | RunFinished
)
"""Each event that an observer receives."""


def ignore(event: Event) -> None:
    """Do nothing with an event: an observer for callers that show no events."""


def tell(notify: Callable[[Event], None], message: str) -> None:
    """Send an observer a Notice with this message."""
    notify(Notice(message=message))


def checked_observers(observers: object) -> tuple[Callable[[Event], None], ...]:
    """The observers that a caller gives; raises a TypeError if they are not functions in a list."""
    several = tuple(observers) if isinstance(observers, Iterable) else (None,)
    if not all(map(callable, several)):
        raise TypeError("observers takes a list of functions; write for example observers=[print]")
    return several
