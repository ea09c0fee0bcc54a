"""A run in numbers, as Prometheus wants them; the only module that knows prometheus_client."""

import threading
from collections.abc import Callable
from functools import partial

from vlmbatch.errors import MissingDependencyError
from vlmbatch.events import (
    ConcurrencyChanged,
    EndpointPaused,
    EndpointResumed,
    Event,
    ImageFinished,
    ImagesSkipped,
    QueueMeasured,
    RetryScheduled,
    RunFinished,
    RunStarted,
    SourceProblem,
    TotalKnown,
)
from vlmbatch.records import Result

try:
    from prometheus_client import (
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        disable_created_metrics,
        write_to_textfile,
    )
except ImportError as missing:
    raise MissingDependencyError(
        'prometheus_client is not installed; install it with: pip install "vlmbatch[metrics]"'
    ) from missing

WRITE_EVERY_S = 5.0
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
"""Upper bounds of how long an image took, from a small model on a good card to a large one on none."""


class Metrics:
    """An observer that counts a run into a registry of its own; any thread may read that."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        self._images = counter("vlmbatch_images", "Images with a record from this run.", ["status"])
        self._known = counter("vlmbatch_known", "Answers that were known before.", ["from"])
        self._failures = counter("vlmbatch_failures", "Failed images by kind.", ["kind"])
        self._skipped = gauge("vlmbatch_images_skipped", "Images that an earlier run has done.")
        self._expected = gauge("vlmbatch_images_expected", "Images below the paths, once counted.")
        self._seconds = Histogram(
            "vlmbatch_image_seconds",
            "From the last request for an image to its answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._tokens = counter("vlmbatch_tokens", "Tokens read and written by the model.", ["direction"])
        self._cost = counter("vlmbatch_cost_dollars", "What answers cost in US dollars, where that is known.")
        self._retries = counter("vlmbatch_retries", "Attempts that failed and were repeated.", ["kind"])
        self._problems = counter("vlmbatch_unreadable", "Folders and files that could not be read.")
        self._up = gauge("vlmbatch_endpoint_up", "1 while the endpoint answers, 0 while the run waits.")
        self._away: set[str] = set()
        self._endpoints_away = gauge("vlmbatch_endpoints_away", "Endpoints that the run waits for.")
        self._queue = gauge("vlmbatch_endpoint_queue", "Requests that wait at an endpoint.", ["endpoint"])
        self._fallbacks = counter("vlmbatch_fallbacks", "Answers of a fallback, by why.", ["reason"])
        self._paused = counter("vlmbatch_paused_seconds", "Time spent waiting for the endpoint.")
        self._concurrency = gauge("vlmbatch_concurrency", "Requests at once at most.")
        self._running = gauge("vlmbatch_running", "1 while the run is going on, 0 afterwards.")
        self._started = gauge("vlmbatch_started_timestamp_seconds", "When the run began.")
        self._last = gauge(
            "vlmbatch_last_image_timestamp_seconds", "When an image last got its record, or the run began."
        )
        self._exit_code = gauge("vlmbatch_exit_code", "How the run ended, -1 while it goes on.")
        for status in ("ok", "error"):  # 0 from the beginning: a rate needs a first value
            self._images.labels(status)
        for where in ("duplicate", "cache"):
            self._known.labels(where)
        for direction in ("input", "output"):
            self._tokens.labels(direction)
        self._running.set(1)
        self._exit_code.set(-1)
        self._started.set_to_current_time()
        self._last.set_to_current_time()

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        match event:
            case RunStarted(concurrency=concurrency) | ConcurrencyChanged(concurrency=concurrency):
                self._concurrency.set(concurrency)
                self._up.set(1)
            case TotalKnown(total=total):
                self._expected.set(total)
            case ImagesSkipped(skipped=skipped):
                self._skipped.set(skipped)
            case SourceProblem():
                self._problems.inc()
            case RetryScheduled(kind=kind):
                self._retries.labels(kind).inc()
            case EndpointPaused() | EndpointResumed():
                self._endpoint(event)
            case QueueMeasured(endpoint=endpoint, waiting=waiting):
                self._queue.labels(endpoint).set(waiting)
            case ImageFinished(result=result):
                self._image(result)
            case RunFinished(summary=summary):
                self._skipped.set(summary.skipped + summary.failed_before)
            case _:
                pass

    def _endpoint(self, event: EndpointPaused | EndpointResumed) -> None:
        if isinstance(event, EndpointResumed):
            self._away.discard(event.endpoint)
            self._paused.inc(event.paused_s)
            self._up.set(1)
        else:
            self._away.add(event.endpoint)
            self._up.set(event.others_up)
        self._endpoints_away.set(len(self._away))

    def end(self, exit_code: int) -> None:
        """The run is over."""
        self._running.set(0)
        self._exit_code.set(exit_code)

    def _image(self, result: Result) -> None:
        self._last.set_to_current_time()
        self._images.labels("ok" if result.ok else "error").inc()
        if result.failure is not None:
            self._failures.labels(result.failure.kind).inc()
        if result.cost is not None:
            self._cost.inc(result.cost)
        if result.ok and result.fallback is not None and not result.is_known:
            self._fallbacks.labels(result.fallback.reason).inc()
        if result.is_known:
            self._known.labels("cache" if result.cached else "duplicate").inc()
        elif result.completion is not None:
            self._seconds.observe(result.duration_s)
            self._tokens.labels("input").inc(result.completion.usage.input_tokens)
            self._tokens.labels("output").inc(result.completion.usage.output_tokens)


class MetricsFile:
    """An observer that keeps the metrics of a run in a file, which always is a whole one.

    It is replaced every few seconds, from the moment the run has started until it has ended.
    """

    def __init__(self, path: str, tell: Callable[[str], None], *, every_s: float = WRITE_EVERY_S) -> None:
        """`tell` hears once, on the thread of events, that the file cannot be written: that ends no run."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time stamp beside every counter
        self._path = path
        self._tell = tell
        self._every_s = every_s
        self._metrics = Metrics()
        self._trouble: str | None = None
        self._told = False
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="vlmbatch-metrics", daemon=True)

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        self._metrics(event)
        if isinstance(event, RunStarted):
            self._ticker.start()
        self._tell_trouble()

    def end(self, exit_code: int, _error: str | None) -> None:
        """Write for the last time, with how the run ended."""
        self._ended.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self._metrics.end(exit_code)
        self._write()
        self._tell_trouble()

    def _tick(self) -> None:
        self._write()
        while not self._ended.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        try:
            write_to_textfile(self._path, self._metrics.registry)
        except OSError as error:
            self._trouble = f"--metrics-file {self._path} is not written: {error.strerror}; the run goes on"

    def _tell_trouble(self) -> None:
        if self._trouble is not None and not self._told:
            self._told = True
            self._tell(self._trouble)
