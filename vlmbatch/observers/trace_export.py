"""Sends the traces of a run over OTLP; the only module that imports OpenTelemetry's SDK and exporter."""

import logging
import os
import threading
from collections.abc import Callable
from importlib.metadata import version
from urllib.parse import urlsplit

from vlmbatch.config.spec import redact, require
from vlmbatch.errors import ConfigError
from vlmbatch.events import Event
from vlmbatch.observers.format import clean
from vlmbatch.observers.tracing import LONGEST_TEXT, Tracing, missing_extra

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ImportError as missing:
    raise missing_extra() from missing

FLUSH_S = 3.0
"""How long the end of a run waits for the last traces to be sent."""
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class TraceExport:
    """An observer that sends the spans of Tracing to a collector, as the OTEL_ variables say.

    A thread sends them. If the collector does not take them, spans are lost, and the run goes on.
    """

    def __init__(self, warn: Callable[[str], None], *, flush_s: float = FLUSH_S) -> None:
        """`warn` receives one message, on the thread of events, if traces are lost.

        `flush_s` is how long end() waits for the last traces, in seconds.

        Raises:
            ConfigError: the address is not a URL, or the SDK refuses the value of another variable.
        """
        self._warn = warn
        self._flush_s = flush_s
        self._warned = False
        self._problems = _Problems()
        _require_url()
        logger = logging.getLogger("opentelemetry")
        logger.propagate = False
        logger.handlers = [logging.NullHandler()]  # a record may have the text of OTEL_EXPORTER_OTLP_HEADERS
        try:
            self._exporter = OTLPSpanExporter()
            self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"--traces: OpenTelemetry refuses the value of an OTEL_ variable ({clean(str(error))}); "
                "set another value, or leave --traces out"
            ) from error
        logger.handlers = [self._problems]
        self.tracing = Tracing(self._provider)

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        self.tracing(event)
        if self._problems.lost:
            self._warn_once("; the run goes on")

    def end(self, _exit_code: int, _error: str | None) -> None:
        """Send the last traces, for at most `flush_s` seconds."""
        flushing = threading.Thread(target=self._provider.shutdown, name="vlmbatch-traces", daemon=True)
        flushing.start()
        flushing.join(self._flush_s)
        if flushing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # ends the wait before a retry
            self._problems.lost = True
        if self._problems.lost:
            self._warn_once("")

    def _warn_once(self, goes_on: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"--traces: traces do not reach {_address()} ({self._problems.reason}); "
                f"start a collector there, or set {ENDPOINT}{goes_on}"
            )


class _Problems(logging.Handler):
    """Keeps what the SDK logs, instead of printing it: the last reason, and whether spans are lost."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lost = False
        self.reason = "it does not reply in time"

    def emit(self, record: logging.LogRecord) -> None:
        """Receive a record of the SDK, in any thread."""
        is_full = record.name.startswith("opentelemetry.sdk")
        if not is_full and not record.name.startswith("opentelemetry.exporter"):
            return
        values = record.args if isinstance(record.args, tuple) else ()
        told = [text for value in values if (text := _brief(value))]
        if told:
            self.reason = told[0]
        elif len(values) > 1 or is_full:
            self.reason = clean(record.getMessage()[:LONGEST_TEXT]).rstrip(".")
        self.lost = self.lost or is_full or record.levelno >= logging.ERROR


def _brief(value: object) -> str | None:
    """The name of an exception, since its text may have the password of the address, or an HTTP status."""
    if isinstance(value, Exception):
        return type(value).__name__
    return f"HTTP {value}" if isinstance(value, int) else None


def _resource() -> Resource:
    """The service `vlmbatch`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say something else."""
    own = {SERVICE_NAME: "vlmbatch", SERVICE_VERSION: version("vlmbatch")}
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})


def _require_url() -> None:
    """Raise ConfigError unless the address is a URL with a host; the message does not show it."""
    name = TRACES_ENDPOINT if os.environ.get(TRACES_ENDPOINT) else ENDPOINT
    try:
        parts = urlsplit(_address())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port
        good = False
    example = "http://localhost:4318" + ("/v1/traces" if name == TRACES_ENDPOINT else "")
    require(good, f"{name} is not an http URL; write for example {example}")


def _address() -> str:
    """Where the SDK sends traces, without user and password."""
    base = os.environ.get(ENDPOINT) or "http://localhost:4318"
    return redact(os.environ.get(TRACES_ENDPOINT) or f"{base.removesuffix('/')}/v1/traces")
