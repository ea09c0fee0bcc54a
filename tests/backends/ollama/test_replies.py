"""What Ollama tells beside the answer: loads, full contexts, models that run elsewhere, that it is there."""

import asyncio
from typing import Any

import pytest
from backend_contract import KINDS, babbling, question, reply
from endpoint import Endpoint, Model

OLLAMA = KINDS["ollama"]


async def test_reloads_are_told() -> None:
    """A load that an answer waited for is told in seconds, but for the first answer and for short ones."""
    with Endpoint(script=["reload:8", "reload:8", "reload:0.5", "ok"]) as endpoint:
        async with OLLAMA.open(endpoint.url) as backend:
            loads = [(await backend.complete(question())).load_s for _ in range(4)]
    assert loads == [0.0, 8.0, 0.0, 0.0]


async def test_requests_that_wait_for_the_first_load_together() -> None:
    """Whoever was sent before the model was ever loaded waited for the first load, which is no news."""
    with Endpoint(script=["reload:8"] * 4) as endpoint:
        async with OLLAMA.open(endpoint.url) as backend:
            together = await asyncio.gather(*(backend.complete(question()) for _ in range(3)))
            later = await backend.complete(question())
    assert ([done.load_s for done in together], later.load_s) == ([0.0] * 3, 8.0)


def answered(tokens: int) -> bytes:
    """An answer to a prompt of so many tokens."""
    message = {"role": "assistant", "content": "A cat."}
    return reply({"message": message, "done": True, "done_reason": "stop", "prompt_eval_count": tokens})


@pytest.mark.parametrize(
    ("tokens", "num_ctx", "warned"),
    [(2046, 2048, False), (2047, 2048, True), (2048, 2048, True), (2048, None, False)],
)
async def test_prompt_that_fills_the_context(tokens: int, num_ctx: int | None, warned: bool) -> None:
    """A prompt that takes all of a known context was probably cut, which the answer warns of."""
    async with babbling(answered(tokens)) as url, OLLAMA.open(url) as backend:
        done = await backend.complete(question(num_ctx=num_ctx))
    assert any("context of 2048 tokens" in warning for warning in done.warnings) is warned


@pytest.mark.parametrize("where", ["both", "the list"])
async def test_remote_model(where: str) -> None:
    """A model that this Ollama passes on is told of with its host, wherever Ollama tells it."""
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
    """The names of cloud models tell it where the server does not."""
    with Endpoint(models={name: Model()}) as endpoint:
        async with OLLAMA.open(endpoint.url, model=name) as backend:
            found = await backend.preflight()
    assert any("images leave this machine" in note for note in found.notes) is leaves


async def test_probe_asks_for_the_version(endpoint: Endpoint) -> None:
    """A probe of Ollama asks the route that needs no model."""
    async with OLLAMA.open(endpoint.url) as backend:
        await backend.probe()
    assert [(r.method, r.path) for r in endpoint.requests] == [("GET", "/api/version")]
