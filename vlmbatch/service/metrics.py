"""The metrics of the service for Prometheus."""

from functools import partial

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from vlmbatch.events import Event, RetryScheduled
from vlmbatch.images import ImageFacts
from vlmbatch.observers.prometheus import SECONDS
from vlmbatch.records import Result
from vlmbatch.service.call import Call
from vlmbatch.service.models import Models
from vlmbatch.service.queue_metrics import QueueFacts, QueueMetrics

CONTENT_TYPE = CONTENT_TYPE_LATEST
BYTES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000)
PIXELS = (
    50_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    12_000_000,
    25_000_000,
    50_000_000,
    200_000_000,
)
OTHER_METHOD = "other"


class ServiceMetrics:
    """Counts requests and what they cost, in its own registry."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # no extra time stamp for each counter
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        by = ["route", "status", "kind"]
        self._requests = counter("vlm_requests", "Requests by route, HTTP status and kind of failure.", by)
        self._seconds = histogram(
            "vlm_request_latency_seconds",
            "Time from the first byte of a request to the last of its reply.",
            by,
            buckets=SECONDS,
        )
        self._bytes = histogram(
            "vlm_image_size_bytes", "Size of the image files that came.", ["route"], buckets=BYTES
        )
        self._sent = histogram(
            "vlm_image_sent_bytes", "Size of the pictures that the model got.", ["route"], buckets=BYTES
        )
        self._pixels = histogram(
            "vlm_image_pixels", "Pixels of the images that came.", ["route"], buckets=PIXELS
        )
        self._results = counter(
            "vlm_results", "Results by route, status and kind of failure.", ["route", "status", "kind"]
        )
        self._tokens = counter(
            "vlm_tokens", "Tokens read and written by the model.", ["route", "model", "direction"]
        )
        self._cost = counter(
            "vlm_cost_dollars", "Cost of answers in US dollars, as far as it is known.", ["route", "model"]
        )
        self._known = counter("vlm_known", "Answers reused without a request to the model.", ["route"])
        self._retries = counter("vlm_retries", "Attempts that failed and were retried, by kind.", ["kind"])
        self._in_flight = gauge("vlm_requests_in_flight", "Requests that have begun and not ended.")
        self._waiting = gauge("vlm_queue", "Pictures that wait for a place at an endpoint.", ["model"])
        self._up = gauge("vlm_endpoint_up", "1 while the endpoint takes requests.", ["model", "endpoint"])
        self._at_endpoint = gauge(
            "vlm_endpoint_in_flight", "Requests at the endpoint.", ["model", "endpoint"]
        )
        self._queued = gauge(
            "vlm_endpoint_queue", "Requests of all clients that wait at the endpoint.", ["model", "endpoint"]
        )
        self._queue = QueueMetrics(self.registry)

    def __call__(self, event: Event) -> None:
        """Receive an event of a session."""
        if isinstance(event, RetryScheduled):
            self._retries.labels(event.kind).inc()

    def began(self) -> None:
        """A request has begun."""
        self._in_flight.inc()

    def ended(self, call: Call, route: str) -> None:
        """A request has ended; `route` is the pattern of its path."""
        self._in_flight.dec()
        labels = (route, str(call.status), call.kind)
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).observe(call.duration_s)
        for size in call.image_bytes:
            self._bytes.labels(route).observe(size)
        for result in call.results:
            self._result(result, route)

    def _result(self, result: Result, route: str) -> None:
        failure = result.failure
        self._results.labels(
            route, "ok" if failure is None else "error", "" if failure is None else failure.kind
        ).inc()
        for facts in (result.image, *result.more_images):
            self._image(facts, route)
        if result.is_known:
            self._known.labels(route).inc()
            return
        model = result.endpoint.model
        if result.cost is not None:
            self._cost.labels(route, model).inc(result.cost)
        if result.completion is not None:
            usage = result.completion.usage
            self._tokens.labels(route, model, "input").inc(usage.input_tokens)
            self._tokens.labels(route, model, "output").inc(usage.output_tokens)

    def _image(self, facts: ImageFacts, route: str) -> None:
        if facts.sent_bytes is not None:
            self._sent.labels(route).observe(facts.sent_bytes)
        if facts.width is not None and facts.height is not None:
            self._pixels.labels(route).observe(facts.width * facts.height)

    def text(self, models: Models, queue: QueueFacts | None = None) -> bytes:
        """All metrics in the format of Prometheus, with the state of endpoints and queue now."""
        self._queue.facts = queue
        for gauge in (self._waiting, self._up, self._at_endpoint, self._queued):
            gauge.clear()
        for served in models.served:
            name, state = served.name or "", served.session.state
            self._waiting.labels(name).set(state.waiting)
            for endpoint in state.endpoints:
                place = (name, endpoint.url)
                self._up.labels(*place).set(endpoint.up)
                self._at_endpoint.labels(*place).set(endpoint.in_flight)
                if endpoint.waiting is not None:
                    self._queued.labels(*place).set(endpoint.waiting)
        return generate_latest(self.registry)
