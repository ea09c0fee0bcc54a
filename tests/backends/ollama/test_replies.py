"""Facts that Ollama reports besides the answer: reloads, full contexts, remote models, its version."""

import asyncio
from typing import Any

import pytest
from backend_contract import KINDS, babbling, question, reply
from endpoint import Endpoint, Model

OLLAMA = KINDS["ollama"]


async def test_reloads_are_reported() -> None:
    """A reload before an answer is reported in seconds, except for the first load and short ones."""
    with Endpoint(script=["reload:8", "reload:8", "reload:0.5", "ok"]) as endpoint:
        async with OLLAMA.open(endpoint.url) as backend:
            loads = [(await backend.complete(question())).load_s for _ in range(4)]
    assert loads == [0.0, 8.0, 0.0, 0.0]


async def test_requests_that_wait_for_the_first_load_together() -> None:
    """Requests sent before the first load do not report a reload."""
    with Endpoint(script=["reload:8"] * 4) as endpoint:
        async with OLLAMA.open(endpoint.url) as backend:
            together = await asyncio.gather(*(backend.complete(question()) for _ in range(3)))
            later = await backend.complete(question())
    assert ([done.load_s for done in together], later.load_s) == ([0.0] * 3, 8.0)


def answered(tokens: int) -> bytes:
    """An answer to a prompt with this number of tokens."""
    message = {"role": "assistant", "content": "A cat."}
    return reply({"message": message, "done": True, "done_reason": "stop", "prompt_eval_count": tokens})


@pytest.mark.parametrize("done", [{}, {"done": "true"}, {"done": None}, {"done": 1}], ids=str)
async def test_an_answer_without_its_end_mark(done: dict[str, Any]) -> None:
    """An answer without `done`, or with another value for it than false, has ended."""
    body = reply({"message": {"role": "assistant", "content": "A cat."}, **done})
    async with babbling(body) as url, OLLAMA.open(url) as backend:
        assert (await backend.complete(question())).text == "A cat."


@pytest.mark.parametrize(
    ("tokens", "num_ctx", "warned"),
    [(2046, 2048, False), (2047, 2048, True), (2048, 2048, True), (2048, None, False)],
)
async def test_prompt_that_fills_the_context(tokens: int, num_ctx: int | None, warned: bool) -> None:
    """The answer to a prompt that fills a known context has a warning that it may be truncated."""
    async with babbling(answered(tokens)) as url, OLLAMA.open(url) as backend:
        done = await backend.complete(question(num_ctx=num_ctx))
    assert any("context of 2048 tokens" in warning for warning in done.warnings) is warned


@pytest.mark.parametrize("where", ["both", "the list"])
async def test_remote_model(where: str) -> None:
    """A note names the host of a remote model, whichever reply reports it."""
    remote = {"remote_host": "https://me:pw@ollama.example:443", "remote_model": "big"}
    listed: dict[str, Any] = {"models": [{"name": "m:latest", **remote}], "capabilities": ["vision"]}
    told = {**listed, **remote} if where == "both" else listed
    async with babbling(reply(told)) as url, OLLAMA.open(url, model="m") as backend:
        found = await backend.preflight()
    assert found.notes == ("m runs elsewhere (https://ollama.example:443): images leave this machine",)


@pytest.mark.parametrize(
    ("name", "leaves"), [("big:cloud", True), ("big:235b-cloud", True), ("cloudy", False), ("a:7b", False)]
)
async def test_cloud_model_by_its_name(name: str, leaves: bool) -> None:
    """A cloud model is recognised by its name if the server does not report a remote host."""
    with Endpoint(models={name: Model()}) as endpoint:
        async with OLLAMA.open(endpoint.url, model=name) as backend:
            found = await backend.preflight()
    assert any("images leave this machine" in note for note in found.notes) is leaves


async def test_probe_requests_the_version(endpoint: Endpoint) -> None:
    """A probe of Ollama requests the version, which needs no model."""
    async with OLLAMA.open(endpoint.url) as backend:
        await backend.probe()
    assert [(r.method, r.path) for r in endpoint.requests] == [("GET", "/api/version")]
