"""Runs at an endpoint whose context is too small for picture, prompt and answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from running import ran

Photos = Callable[..., Path]
LONG_ANSWER = " ".join(f"word{n}" for n in range(200))
both = pytest.mark.parametrize("backend", ["ollama", "vllm"])


@pytest.fixture
def small(endpoint: Endpoint) -> Endpoint:
    """An endpoint that counts a token for each 28x28 pixels and for each word of prompt and answer."""
    endpoint.counts = "patches"
    endpoint.answer = lambda request: LONG_ANSWER
    return endpoint


def asked(endpoint: Endpoint, backend: str, **options: Any) -> dict[str, Any]:
    return {"backend": backend, "base_url": endpoint.url, "model": "tiny-vision", "concurrency": 1, **options}


@both
async def test_an_answer_that_the_context_cuts_is_requested_with_a_smaller_picture(
    photos: Photos, small: Endpoint, backend: str
) -> None:
    """An answer that the context cuts is whole once the picture is smaller, and the record says so."""
    photos(1, (448, 448))
    small.context = 400
    [result] = (await ran(**asked(small, backend))).results
    assert result.completion is not None
    assert result.completion.text == LONG_ANSWER
    assert result.attempts == 2
    assert result.image.sent_width == small.questions[-1].pictures[0].width < 448
    assert "retried with a smaller picture: truncated" in result.warnings


@both
async def test_a_failure_names_the_context_and_keeps_the_text(
    photos: Photos, small: Endpoint, backend: str
) -> None:
    """If even a small picture leaves no room for the answer, the failure has the numbers and the text."""
    photos(1, (448, 448))
    small.context = 150
    [result] = (await ran(**asked(small, backend, max_size=224))).results
    assert result.failure is not None
    assert result.failure.kind == "truncated"
    assert "the context of 150 tokens is full" in result.failure.message
    assert "larger --max-tokens" not in result.failure.message
    assert (result.failure.partial or "").startswith("word0 word1")
    assert LONG_ANSWER.startswith(result.failure.partial or "?")


@both
async def test_a_cut_by_the_context_is_accepted_with_its_cause(
    photos: Photos, small: Endpoint, backend: str
) -> None:
    """With --accept length the cut answer is stored after one request, and its warning names the context."""
    photos(1, (448, 448))
    small.context = 400
    [result] = (await ran(**asked(small, backend, accept="length"))).results
    assert result.ok
    assert len(small.questions) == 1
    assert any("although the context of 400 tokens cut it" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("ps", "options", "told"),
    [
        ("404-route", {}, "the endpoint cut the answer after"),
        ("broken_json", {}, "the endpoint cut the answer after"),
        ("404-route", {"num_ctx": 150}, "the context of 150 tokens is full"),
        ("404-route", {"option": "num_ctx=150"}, "the context of 150 tokens is full"),
    ],
)
async def test_an_ollama_that_does_not_report_its_context(
    photos: Photos, small: Endpoint, ps: str, options: dict[str, Any], told: str
) -> None:
    """Without --num-ctx and without /api/ps, the message says that the endpoint cut the answer."""
    photos(1, (448, 448))
    small.context, small.routes["/api/ps"] = 150, ps
    [result] = (await ran(**asked(small, "ollama", max_size=224, **options))).results
    assert result.failure is not None
    assert told in result.failure.message
    assert "larger --max-tokens" not in result.failure.message
