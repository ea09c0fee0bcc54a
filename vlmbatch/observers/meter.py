"""Counts the events of a run and computes its rates and its remaining time."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vlmbatch.events import (
    ConcurrencyChanged,
    EndpointPaused,
    EndpointProven,
    EndpointResumed,
    Event,
    ImageFinished,
    ImagesSkipped,
    PreflightDelayed,
    QueueMeasured,
    RunStarted,
    TotalKnown,
)
from vlmbatch.observers.format import countdown

WINDOW_S = 30.0
WINDOW_IMAGES = 10
"""Rates cover the last half minute, or the last ten images if these took longer."""
STEP_S = 0.25
"""Images that end within this time share an entry, so that a fast endpoint does not fill memory."""

SEARCHING = "looking for the endpoint"
UP = "endpoint up"
DOWN = "endpoint down, waiting"


@dataclass(slots=True)
class _Step:
    """The images from `began` to `ended`, in seconds, and their output tokens."""

    began: float
    ended: float
    images: int
    tokens: int


class Meter:
    """The counts of a run so far and its recent rates. Updates and reads may come from two threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, searching: str = SEARCHING) -> None:
        """`clock` returns seconds. `searching` is the state until the run has begun."""
        self.ok = 0
        self.failed = 0
        self.skipped = 0
        self.total: int | None = None
        self.endpoint = SEARCHING
        self.noun = "endpoint"
        """What the records come from: an endpoint or a queue."""
        self._searching = searching
        self._reason = ""
        self.concurrency = 0
        self.endpoints = 1
        self._away: set[str] = set()
        self._queued: dict[str, int] = {}
        self._clock = clock
        self._lock = threading.Lock()
        self._window_began = clock()
        self._lately: deque[_Step] = deque()
        self._images_lately = 0
        self._tokens_lately = 0

    @property
    def done(self) -> int:
        """The number of images with a record, from this run or an earlier one."""
        return self.ok + self.failed + self.skipped

    @property
    def state(self) -> str:
        """The state of the endpoints, and the limit of requests at once or why no endpoint is found yet."""
        if self.endpoint == SEARCHING:
            return f"{self._searching}: {self._reason}" if self._reason else self._searching
        if self.endpoint != UP or not self.concurrency:
            return self.endpoint.replace("endpoint", self.noun)
        up = (
            UP if self.endpoints == 1 else f"{self.endpoints - len(self._away)}/{self.endpoints} endpoints up"
        )
        queued = sum(self._queued.values())
        return f"{up}, {self.concurrency} at once" + (f", {queued} queued" if queued else "")

    def update(self, event: Event) -> None:
        """Count this event."""
        match event:
            case PreflightDelayed(message=message):
                self._reason = message
            case RunStarted(concurrency=concurrency):
                self.endpoint, self._window_began = UP, self._clock()
                self.concurrency = concurrency
                self.noun = "endpoint" if concurrency else "queue"
                self.endpoints = 1 + len(event.others) + len(event.fallbacks)
            case QueueMeasured(endpoint=endpoint, waiting=waiting):
                self._queued[endpoint] = waiting
            case ConcurrencyChanged(concurrency=concurrency):
                self.concurrency = concurrency
            case TotalKnown(total=total):
                self.total = total
            case ImagesSkipped(skipped=skipped):
                self.skipped = skipped
            case EndpointPaused() | EndpointResumed():
                self._outage(event)
            case EndpointProven():
                self.endpoint = UP
            case ImageFinished(result=result):
                self.ok += result.ok
                self.failed += not result.ok
                self._count(result.completion.usage.output_tokens if result.completion else 0)
            case _:
                pass

    def _outage(self, event: EndpointPaused | EndpointResumed) -> None:
        if isinstance(event, EndpointResumed):
            self._away.discard(event.endpoint)
            self.endpoint = UP
        else:
            self._away.add(event.endpoint)
            self._queued.pop(event.endpoint, None)
            self.endpoint = UP if event.others_up else DOWN

    def _count(self, tokens: int) -> None:
        with self._lock:
            now = self._clock()
            if self._lately and now - self._lately[-1].began < STEP_S:
                step = self._lately[-1]
                step.ended, step.images, step.tokens = now, step.images + 1, step.tokens + tokens
            else:
                self._lately.append(_Step(now, now, 1, tokens))
            self._images_lately += 1
            self._tokens_lately += tokens
            self._drop_old_steps(now)  # also if the rates are never read

    def _drop_old_steps(self, now: float) -> None:
        """Drop the steps that ended before the window."""
        while (
            self._lately
            and now - self._lately[0].ended > WINDOW_S
            and self._images_lately - self._lately[0].images >= WINDOW_IMAGES
        ):
            old = self._lately.popleft()
            self._window_began = old.ended
            self._images_lately -= old.images
            self._tokens_lately -= old.tokens

    def rates(self) -> tuple[float, float]:
        """The recent images and tokens per second."""
        with self._lock:
            now = self._clock()
            self._drop_old_steps(now)
            span = max(now - self._window_began, 0.1)
            return self._images_lately / span, self._tokens_lately / span

    def eta_s(self) -> float | None:
        """The estimated seconds until the end; None while they cannot be estimated."""
        images_s, _ = self.rates()
        if self.total is None or images_s == 0 or self.endpoint != UP:
            return None
        return max(self.total - self.done, 0) / images_s

    def line(self) -> str:
        """The progress in one line."""
        images_s, tokens_s = self.rates()
        of = f"/{self.total}" if self.total is not None else ""
        return (
            f"{self.done}{of} done, {self.ok} ok, {self.failed} failed, {images_s:.1f} images/s, "
            f"{tokens_s:.0f} tokens/s, ETA {countdown(self.eta_s())}, {self.state}"
        )
