"""Traces of the service: a request continues the trace of its client, and its image is a part of it."""

import pytest
from endpoint import Endpoint
from otlp import collector, values
from serving import Served, picture

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_request_continues_the_trace_of_its_client(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header traceparent names the parent of the request, whose image and model calls are below it."""
    with collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        with Served(endpoint, traces=True) as served:
            told = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            assert served.upload(picture(1), headers=told, prompt="a private prompt").status_code == 200
            served.upload(b"no image at all", headers=told)
    spans = [span for span in running.spans if span.trace_id.hex() == TRACE]
    answered, refused = [span for span in spans if span.name == "POST /analyze/upload"]
    assert answered.parent_span_id.hex() == "00f067aa0ba902b7"
    assert values(answered)["http.response.status_code"] == 200
    assert values(refused)["error.type"] == "not_an_image"
    (image,) = [span for span in spans if span.name == "vlmbatch.image"]
    assert image.parent_span_id == answered.span_id
    assert {span.name for span in spans if span.parent_span_id == image.span_id} == {
        "prepare",
        "wait",
        "chat tiny-vision",
    }
    assert b"private" not in b"".join(running.bodies)
