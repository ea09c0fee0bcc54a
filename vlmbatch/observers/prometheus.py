"""The metrics of a run for Prometheus; the only module that imports prometheus_client."""

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
"""Upper bounds of the time per image, from a small model on a good GPU to a large one without a GPU."""


class Metrics:
    """An observer that counts the events of a run in its own registry; any thread may read it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        self._images = counter("vlmbatch_images", "Images with a record from this run.", ["status"])
        self._known = counter("vlmbatch_known", "Answers reused without a request.", ["from"])
        self._failures = counter("vlmbatch_failures", "Failed images by kind.", ["kind"])
        self._skipped = gauge("vlmbatch_images_skipped", "Images that an earlier run has done.")
        self._expected = gauge("vlmbatch_images_expected", "Images below the paths, once all are counted.")
        self._seconds = Histogram(
            "vlmbatch_image_seconds",
            "Time from the last request for an image to its answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._tokens = counter("vlmbatch_tokens", "Tokens read and written by the model.", ["direction"])
        self._cost = counter("vlmbatch_cost_dollars", "Cost of answers in US dollars, as far as it is known.")
        self._retries = counter("vlmbatch_retries", "Attempts that failed and were retried.", ["kind"])
        self._problems = counter("vlmbatch_unreadable", "Folders and files that could not be read.")
        self._up = gauge("vlmbatch_endpoint_up", "1 while an endpoint is up, 0 while the run waits for one.")
        self._away: set[str] = set()
        self._endpoints_away = gauge("vlmbatch_endpoints_away", "Endpoints that the run waits for.")
        self._queue = gauge("vlmbatch_endpoint_queue", "Requests that wait at an endpoint.", ["endpoint"])
        self._fallbacks = counter("vlmbatch_fallbacks", "Answers of a fallback, by reason.", ["reason"])
        self._paused = counter("vlmbatch_paused_seconds", "Time spent waiting for the endpoint.")
        self._concurrency = gauge("vlmbatch_concurrency", "Limit of requests at once.")
        self._running = gauge("vlmbatch_running", "1 during the run, 0 after it.")
        self._started = gauge("vlmbatch_started_timestamp_seconds", "Start of the run.")
        self._last = gauge(
            "vlmbatch_last_image_timestamp_seconds", "Time of the last record, or of the start of the run."
        )
        self._exit_code = gauge("vlmbatch_exit_code", "Exit code of the run, -1 during the run.")
        for status in ("ok", "error"):  # starts at 0: a rate needs a first value
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
        """Receive an event."""
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
        """Record the end of the run."""
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
    """An observer that writes the metrics of a run to a file, which is always complete.

    The file is replaced every few seconds, from the start of the run to its end.
    """

    def __init__(self, path: str, warn: Callable[[str], None], *, every_s: float = WRITE_EVERY_S) -> None:
        """`warn` receives one message, on the thread of events, if the file cannot be written.

        The run goes on.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]  # no extra time stamp for each counter
        self._path = path
        self._warn = warn
        self._every_s = every_s
        self._metrics = Metrics()
        self._trouble: str | None = None
        self._warned = False
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="vlmbatch-metrics", daemon=True)

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        self._metrics(event)
        if isinstance(event, RunStarted):
            self._ticker.start()
        self._warn_once()

    def end(self, exit_code: int, _error: str | None) -> None:
        """Write the file a last time, with the exit code."""
        self._ended.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self._metrics.end(exit_code)
        self._write()
        self._warn_once()

    def _tick(self) -> None:
        self._write()
        while not self._ended.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        try:
            write_to_textfile(self._path, self._metrics.registry)
        except OSError as error:
            goes_on = "" if self._ended.is_set() else "; the run goes on"
            self._trouble = f"--metrics-file {self._path} cannot be written: {error.strerror}{goes_on}"

    def _warn_once(self) -> None:
        if self._trouble is not None and not self._warned:
            self._warned = True
            self._warn(self._trouble)
