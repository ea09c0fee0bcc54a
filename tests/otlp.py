"""A collector of OpenTelemetry traces on loopback."""

import gzip
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """A collector on loopback: it keeps the body and the headers of each request, and replies `status`."""

    def __init__(self, url: str, status: int) -> None:
        self.url = url
        self.status = status
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    @property
    def exports(self) -> list[ExportTraceServiceRequest]:
        """All requests, read as protobuf."""
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    @property
    def spans(self) -> list[Span]:
        """All spans, in the order of their start."""
        found = [
            span
            for export in self.exports
            for of_resource in export.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


@contextmanager
def collector(status: int = 200) -> Iterator[Collector]:
    """A running collector."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            made.bodies.append(gzip.decompress(body) if packed else body)
            made.headers.append({"path": self.path, **self.headers})
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name of the library
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Collector(f"http://127.0.0.1:{server.server_port}", status)
    serving = threading.Thread(target=server.serve_forever, args=(0.02,))
    serving.start()
    try:
        yield made
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def values(span: Span) -> dict[str, object]:
    """The attributes of a span, without lists."""
    return {
        each.key: getattr(each.value, str(each.value.WhichOneof("value")))
        for each in span.attributes
        if each.value.WhichOneof("value") != "array_value"
    }
