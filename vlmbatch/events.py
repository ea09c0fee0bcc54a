"""What observers hear: one frozen value for each thing that happens in a run."""

from collections.abc import Callable
from dataclasses import dataclass

from vlmbatch.errors import FailureKind, VlmbatchError
from vlmbatch.records import Endpoint, Result, Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The endpoint has been found and the output is open. `adapts`: `concurrency` is only a start.

    `others` are further endpoints that share the images with it, and `fallbacks` those that are asked where
    these fail, for people to read; `notes` are what a person should know of them.
    """

    endpoint: Endpoint
    run: str
    concurrency: int
    output: str
    adapts: bool = False
    others: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyChanged:
    """From now on the endpoint gets this many requests at once; all endpoints together do."""

    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMeasured:
    """An endpoint told how many requests it works on, and how many wait there, of whomever."""

    endpoint: str
    running: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that a person should know and that changes nothing: a repaired output, for example."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalKnown:
    """How many images there are, when a count of the tree has ended before the run."""

    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesSkipped:
    """How many images so far needed no asking, since an earlier run has done them."""

    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProblem:
    """A folder or entry that the source could not look into; nothing of it is in the output."""

    path: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled:
    """An attempt failed and another will follow in `delay_s` seconds."""

    id: str
    attempt: int
    delay_s: float
    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPaused:
    """The endpoint is away; nobody asks it until it is back or `give_up_s` seconds have passed.

    `others_up`: there are others that are asked meanwhile.
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
    """The canary was answered, where there is one: images are asked about from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFinished:
    """An image has its record."""

    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStopping:
    """No image is begun any more; those in flight have `drain_s` seconds. `error` is what ends the run."""

    drain_s: float
    error: VlmbatchError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The last event of every run that started."""

    summary: Summary


Event = (
    RunStarted
    | ConcurrencyChanged
    | QueueMeasured
    | Notice
    | TotalKnown
    | ImagesSkipped
    | SourceProblem
    | RetryScheduled
    | EndpointProven
    | EndpointPaused
    | EndpointResumed
    | ImageFinished
    | RunStopping
    | RunFinished
)


def tell(notify: Callable[[Event], None], message: str) -> None:
    """Let an observer tell a person something that changes nothing."""
    notify(Notice(message=message))
