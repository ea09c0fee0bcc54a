"""Spans of images for OpenTelemetry; this module needs only its API."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vlmbatch.errors import MissingDependencyError
from vlmbatch.events import AskStep, Event, ImageTraced, Step
from vlmbatch.observers.format import clean
from vlmbatch.records import Completion, Result

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

_missing: ImportError | None = None
try:
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind, StatusCode, get_tracer, set_span_in_context
except ImportError as error:
    _missing = error  # raised when it is used, so that `from vlmbatch import *` works without it

LONGEST_TEXT = 256
"""Characters of a text from a file or a server."""
PORTS = {"http": 80, "https": 443}

Attributes = dict[str, str | int | float | list[str]]


class Tracing:
    """An observer that makes OpenTelemetry spans of each image: ``open_session(observers=[Tracing()])``.

    The span `vlmbatch.image` has a child for each step: `prepare`, `wait`, and for each request `chat MODEL`
    with the attributes of OpenTelemetry's conventions for generative AI. Its parent is the current span of
    the code that asks. No span has a prompt, an answer, a message, a key or image data.
    """

    def __init__(self, tracer_provider: "TracerProvider | None" = None) -> None:
        """The spans go to `tracer_provider`, or to the global one.

        Raises:
            MissingDependencyError: the package opentelemetry is not installed.
        """
        if _missing is not None:
            raise missing_extra() from _missing
        self._tracer = get_tracer("vlmbatch", tracer_provider=tracer_provider)

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        if isinstance(event, ImageTraced):
            self._image(event)

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> "Iterator[ServedRequest]":
        """The span of an HTTP request to a service, current inside the ``with``.

        Its parent is the span that the header `traceparent` names.
        """
        with self._tracer.start_as_current_span(
            method,
            extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method[:LONGEST_TEXT]},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield ServedRequest(span, method)

    def _image(self, event: ImageTraced) -> None:
        span = self._tracer.start_span("vlmbatch.image", start_time=event.start_ns)
        if not span.is_recording():  # by the sampler
            return
        span.set_attribute("vlmbatch.image.id", _text(event.id))
        if event.result is not None:
            span.set_attributes(_of_result(event.result))
        context = set_span_in_context(span)
        for step in event.steps:
            self._step(step, context)
        _end(span, event.error, event.end_ns)

    def _step(self, step: Step, context: "Context") -> None:
        if isinstance(step, AskStep):
            span = self._tracer.start_span(
                f"chat {_text(step.endpoint.model)}",
                context,
                kind=SpanKind.CLIENT,
                attributes=_of_request(step),
                start_time=step.start_ns,
            )
        else:
            span = self._tracer.start_span(step.name, context, start_time=step.start_ns)
        _end(span, step.error, step.end_ns)


class ServedRequest:
    """The span of an HTTP request to a service."""

    def __init__(self, span: "Span", method: str) -> None:
        """Tracing.request() makes it."""
        self._span = span
        self._method = method

    def ended(self, route: str, status: int, kind: str) -> None:
        """The request has ended; `route` is the pattern of its path, and `kind` the kind of its failure."""
        self._span.update_name(f"{self._method[:LONGEST_TEXT]} {route}")
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        if kind:
            self._span.set_attribute("error.type", kind)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR, kind)


def missing_extra() -> MissingDependencyError:
    """The error for a user without the extra."""
    return MissingDependencyError(
        'opentelemetry is not installed; install it with: pip install "vlmbatch[otel]"'
    )


def _end(span: "Span", error: str | None, end_ns: int) -> None:
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR, error)
    span.end(end_ns)


def _of_result(result: Result) -> Attributes:
    found: Attributes = {"vlmbatch.run": result.run}
    if result.is_known:
        found["vlmbatch.reused"] = "cache" if result.cached else "duplicate"
    return found


def _of_request(step: AskStep) -> Attributes:
    """The attributes of a request and its reply, with the names of the conventions."""
    generation = step.generation
    found: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": step.endpoint.backend,
        "gen_ai.request.model": _text(step.endpoint.model),
        "gen_ai.request.max_tokens": generation.max_tokens,
        "gen_ai.request.temperature": generation.temperature,
        "vlmbatch.attempt": step.attempt,
        **_of_server(step.endpoint.url),
    }
    if generation.seed is not None:
        found["gen_ai.request.seed"] = generation.seed
    if generation.schema is not None:
        found["gen_ai.output.type"] = "json"
    if step.completion is not None:
        found |= _of_completion(step.completion)
    return found


def _of_completion(completion: Completion) -> Attributes:
    found: Attributes = {"gen_ai.response.model": _text(completion.model)}
    if completion.finish_reason:
        found["gen_ai.response.finish_reasons"] = [_text(completion.finish_reason)]
    if completion.usage.input_tokens:
        found["gen_ai.usage.input_tokens"] = completion.usage.input_tokens
    if completion.usage.output_tokens:
        found["gen_ai.usage.output_tokens"] = completion.usage.output_tokens
    return found


def _of_server(url: str) -> Attributes:
    """Host and port; nothing for a model inside this process, which has no URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return {}
    return {} if host is None or port is None else {"server.address": host, "server.port": port}


def _text(text: str) -> str:
    """A foreign text without control characters and lone surrogates, which protobuf refuses."""
    return clean(text[:LONGEST_TEXT])
