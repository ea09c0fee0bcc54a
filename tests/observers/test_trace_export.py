"""Traces of the real command, as a real collector receives them; a collector that is down ends nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from backend_contract import closed_port
from command import run
from endpoint import Endpoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp import collector, values
from run_events import EVENTS
from waiting import until

from vlmbatch.errors import ConfigError
from vlmbatch.observers.trace_export import TraceExport

Photos = Callable[..., Path]


def test_the_command_sends_a_trace_of_each_image(photos: Photos, endpoint: Endpoint) -> None:
    """With --traces each image is a trace of its own; a bad answer is a failed request before the answer."""
    photos(2)
    endpoint.script = ["empty"]
    endpoint.answer = lambda request: "a private answer"
    asked = (
        "run",
        "photos",
        "-q",
        "-c",
        "1",
        "-b",
        "vllm",
        "--base-url",
        endpoint.url,
        "-p",
        "a private prompt",
    )
    with collector() as running:
        otel = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": running.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=blue",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_RESOURCE_ATTRIBUTES": "service.version=mine",
        }
        key = "sk-a-secret-key"
        done = run(*asked, "-m", "tiny-vision", "--api-key", key, "--traces", "-o", "o.jsonl", **otel)
    assert (done.returncode, done.stderr) == (0, "")
    headers = running.headers[0]
    assert (headers["path"], headers["x-tenant"]) == ("/v1/traces", "blue")
    resource = running.exports[0].resource_spans[0].resource
    described = {each.key: each.value.string_value for each in resource.attributes}
    assert (described["service.name"], described["service.version"]) == ("vlmbatch", "mine")
    images = [span for span in running.spans if span.name == "vlmbatch.image"]
    assert len({span.trace_id for span in images}) == 2
    assert {span.parent_span_id for span in images} == {b""}
    ids = {str(values(span)["vlmbatch.image.id"]) for span in images}
    assert {Path(name).name for name in ids} == {"p0000.jpg", "p0001.jpg"}
    chat = "chat tiny-vision"
    bad = next(span for span in running.spans if span.name == chat)  # the first request
    steps = [span for span in running.spans if span.parent_span_id == bad.parent_span_id]
    assert [span.name for span in steps] == ["prepare", "wait", chat, "wait", chat]
    first, second = (values(span) for span in steps if span.name == chat)
    assert (first["error.type"], steps[2].status.code) == ("empty", Status.STATUS_CODE_ERROR)
    assert steps[4].status.code == Status.STATUS_CODE_UNSET
    assert steps[4].kind == Span.SPAN_KIND_CLIENT
    assert (second["gen_ai.provider.name"], second["server.port"]) == ("vllm", endpoint.port)
    assert "gen_ai.usage.output_tokens" not in first
    assert second["gen_ai.usage.output_tokens"] == 4
    sent = b"".join(running.bodies)
    for text in (b"private", key.encode(), b"blue"):
        assert text not in sent


def test_nothing_is_sent_without_the_option(photos: Photos, endpoint: Endpoint) -> None:
    """The variables of OpenTelemetry alone send nothing, and a collector that refuses costs one line."""
    photos(1)
    asked = ("run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url)
    with collector(status=403) as running:
        address = running.url.replace("//", "//user:a-secret@")
        otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_TRACES_EXPORTER": "otlp"}
        assert run(*asked, **otel).returncode == 0
        assert running.bodies == []
        done = run(*asked, "--traces", **otel)
    assert done.returncode == 0
    advice = "start a collector there, or set OTEL_EXPORTER_OTLP_ENDPOINT"
    assert (
        done.stderr
        == f"vlmbatch: --traces: traces do not reach {running.url}/v1/traces (HTTP 403); {advice}\n"
    )


def test_a_collector_that_is_down_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end waits for a collector up to its limit; one message names the address, and nothing is logged."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a-secret")  # not NAME=VALUE, which the SDK logs
    told = list[str]()
    with closed_port() as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        export = TraceExport(told.append, flush_s=0.1)
        for event in EVENTS:
            export(event)
        assert told == []
        export.end(0, None)
    assert len(told) == 1
    assert told[0].startswith(f"--traces: traces do not reach {address}/v1/traces (")
    assert caplog.text == ""


def test_a_collector_that_fails_during_the_run_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message comes during the run, says that the run goes on, and comes once."""
    told = list[str]()
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    with collector(status=400) as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{running.url}/custom?key=a-secret")
        export = TraceExport(told.append)
        for event in EVENTS:
            export(event)
        until(lambda: export._problems.lost)
        for event in EVENTS:
            export(event)
        export.end(0, None)
    assert running.headers[0]["path"] == "/custom?key=a-secret"
    assert len(told) == 1
    assert told[0].startswith(f"--traces: traces do not reach {running.url}/custom (HTTP 400); ")
    assert told[0].endswith("; the run goes on")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "user:a-secret@host:4318", "is not an http URL; write for example"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://host:port", "is not an http URL; write for example"),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "0",
            r"refuses the value of an OTEL_ variable \(max_queue_size must be",
        ),
    ],
)
def test_a_wrong_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """A value that cannot work is refused before the run, and no secret in it is shown."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message) as raised:
        TraceExport(pytest.fail)
    assert "secret" not in str(raised.value)


def test_a_missing_package_is_named_with_its_extra(photos: Photos, endpoint: Endpoint) -> None:
    """Without OpenTelemetry --traces exits 2 and names the extra, before any request."""
    photos(1)
    Path("opentelemetry.py").write_text("raise ImportError('as if it were not there')")
    asked = ["run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url, "--traces"]
    done = run(*asked, PYTHONPATH=str(Path.cwd()))
    assert done.returncode == 2
    assert 'pip install "vlmbatch[otel]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert endpoint.questions == []
