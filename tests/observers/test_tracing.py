"""The spans of images: their order, parents and attributes, and what they never contain."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from run_events import EVENTS
from running import briefly
from waiting import until

from vlmbatch.config import RunConfig
from vlmbatch.observers.tracing import Tracing
from vlmbatch.pipeline.session import opened
from vlmbatch.sessions import open_session

Photos = Callable[..., Path]


class Spans:
    """OpenTelemetry with its spans in memory."""

    def __init__(self, **options: Any) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.observer = Tracing(self.provider)

    def __call__(self, name: str) -> list[ReadableSpan]:
        """The spans with this name, in the order of their end."""
        return [span for span in self._kept.get_finished_spans() if span.name == name]

    def steps(self, image: ReadableSpan) -> Sequence[ReadableSpan]:
        """The children of the span of an image, by their start."""
        every = self._kept.get_finished_spans()
        found = [span for span in every if span.parent and span.parent.span_id == image.context.span_id]
        return sorted(found, key=lambda span: span.start_time or 0)

    @contextmanager
    def caller(self) -> Iterator[int]:
        """A span of the code that asks; the value is its id."""
        with self.provider.get_tracer("caller").start_as_current_span("caller") as span:
            yield span.get_span_context().span_id


def told(span: ReadableSpan) -> tuple[str, object]:
    """Name and error of a span."""
    return span.name, (span.attributes or {}).get("error.type")


async def becomes(holds: Callable[[], object]) -> None:
    """Wait until this holds."""
    await asyncio.to_thread(until, holds)


def at(endpoint: Endpoint, **options: object) -> dict[str, Any]:
    """Options of a session at this endpoint."""
    return {"backend": "vllm", "base_url": endpoint.url, "model": "tiny-vision", **options}


async def test_each_request_is_a_span_below_the_span_of_its_image(photos: Photos, endpoint: Endpoint) -> None:
    """An image whose first request fails has two spans of requests, and its parent is the caller's span."""
    endpoint.script = ["500", "ok"]
    spans = Spans()
    config = RunConfig.of_session(**at(endpoint, api_key="sk-secret"))
    async with opened(config, spans.observer, sleep=briefly) as session:
        question = session.question(prompt="a private prompt", seed=7, max_tokens=99)
        with spans.caller() as caller:
            result = await session.answer(photos(1) / "p0000.jpg", question)
    assert result.completion is not None
    (image,) = spans("vlmbatch.image")
    assert image.parent is not None
    assert image.parent.span_id == caller
    assert dict(image.attributes or {}) == {"vlmbatch.image.id": result.id, "vlmbatch.run": result.run}
    steps = spans.steps(image)
    chat = "chat tiny-vision"
    assert list(map(told, steps)) == [
        *(("wait", None), ("prepare", None), ("wait", None)),
        *((chat, "server_error"), ("wait", None), (chat, None)),
    ]
    assert [step.start_time for step in steps] == [image.start_time, *(step.end_time for step in steps[:-1])]
    first, second = spans(chat)
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "server_error")
    assert (second.kind, second.status.status_code) == (SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(second.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "tiny-vision",
        "gen_ai.request.max_tokens": 99,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.seed": 7,
        "gen_ai.response.model": "tiny-vision",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": result.completion.usage.input_tokens,
        "gen_ai.usage.output_tokens": result.completion.usage.output_tokens,
        "server.address": "127.0.0.1",
        "server.port": endpoint.port,
        "vlmbatch.attempt": 2,
    }


def test_a_span_of_another_thread_is_the_parent(photos: Photos, endpoint: Endpoint) -> None:
    """A session without an event loop finds the caller's span, too; an answer that is reused says so."""
    path = photos(1) / "p0000.jpg"
    spans = Spans()
    with open_session(**at(endpoint), observers=[spans.observer]) as session, spans.caller() as caller:
        question = session.question()
        for name in ("first", "second"):
            session.answer(path, question, image_id=name)
    first, second = spans("vlmbatch.image")
    assert [span.parent and span.parent.span_id for span in (first, second)] == [caller, caller]
    assert [step.name for step in spans.steps(second)] == ["wait", "prepare"]
    assert "vlmbatch.reused" not in (first.attributes or {})
    assert (second.attributes or {})["vlmbatch.reused"] == "duplicate"


async def test_an_image_without_an_answer_has_a_span(photos: Photos, endpoint: Endpoint) -> None:
    """A broken image, a cancelled call and a call after its deadline have a span with the error."""
    folder = photos(2)
    (folder / "broken.jpg").write_text("no image")
    endpoint.script = ["hang"] * 2
    spans = Spans()
    async with open_session(**at(endpoint), observers=[spans.observer]) as session:
        question = session.question()
        await session.answer(folder / "broken.jpg", question)
        call = asyncio.ensure_future(session.answer(folder / "p0000.jpg", question))
        await becomes(lambda: endpoint.open_questions)
        call.cancel()
        await asyncio.wait((call,))
        await session.answer(folder / "p0001.jpg", question, deadline_s=0.05)
    images = spans("vlmbatch.image")
    errors = ["bad_image", "CancelledError", "timeout"]
    assert [told(image)[1] for image in images] == errors
    assert [image.status.status_code for image in images] == [StatusCode.ERROR] * 3
    last = [spans.steps(image)[-1] for image in images]
    assert [told(step) for step in last[:2]] == [
        ("prepare", "bad_image"),
        ("chat tiny-vision", "CancelledError"),
    ]
    assert told(last[2])[1] == "timeout"


async def test_a_wait_for_an_identical_image_is_a_step(photos: Photos, endpoint: Endpoint) -> None:
    """While an identical image is asked about, the trace of an image has a second wait."""
    path = photos(1) / "p0000.jpg"
    spans = Spans()
    endpoint.hold_until(lambda: endpoint.released)
    async with open_session(**at(endpoint), observers=[spans.observer]) as session:
        question = session.question()
        first = asyncio.ensure_future(session.answer(path, question))
        await becomes(lambda: endpoint.open_questions)
        second = asyncio.ensure_future(session.answer(path, question))
        await becomes(lambda: session.processor._dedup._waiting)
        endpoint.released = True
        await asyncio.gather(first, second)
    steps = [step.name for step in spans.steps(spans("vlmbatch.image")[-1])]
    assert steps == ["wait", "prepare", "wait", "prepare"]


def test_hostile_text_can_be_sent() -> None:
    """Names with bytes of no UTF-8 and control characters become spans that protobuf takes."""
    spans = Spans()
    for event in EVENTS:
        spans.observer(event)
    (image,) = spans("vlmbatch.image")
    (request,) = [step for step in spans.steps(image) if step.kind is SpanKind.CLIENT]
    sent = encode_spans((image, request)).SerializeToString()
    assert b"xred" in sent
    assert b"\x1b" not in str(request.attributes).encode()
    assert (request.attributes or {})["gen_ai.output.type"] == "json"
    assert b"the answer" not in sent


def test_a_sampler_decides() -> None:
    """An image that the sampler leaves out makes no span."""
    spans = Spans(sampler=ALWAYS_OFF)
    for event in EVENTS:
        spans.observer(event)
    assert spans("vlmbatch.image") == []


def test_no_span_has_a_text_of_the_caller(
    photos: Photos, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """No span has the prompt, the answer, the message of a failure or the key."""
    endpoint.answer = lambda request: "a private answer"
    endpoint.script = lambda request: "400"
    spans = Spans()
    folder = photos(2)
    options = at(endpoint, api_key="sk-secret", observers=[spans.observer])
    with open_session(**options) as session:
        question = session.question(prompt="a private prompt", system="a private system")
        failed = session.answer(folder / "p0000.jpg", question)
        endpoint.script = ()
        answered = session.answer(folder / "p0001.jpg", question)
    assert failed.failure is not None
    assert answered.text == "a private answer"
    every = [span for name in ("vlmbatch.image", "chat tiny-vision") for span in spans(name)]
    assert len(every) >= 4
    sent = encode_spans(every).SerializeToString().decode("latin-1")
    for text in ("private", "sk-secret", failed.failure.message):
        assert text not in sent
    assert capsys.readouterr().err == ""
