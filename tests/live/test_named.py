"""Real servers that the user names: VLMBATCH_TEST_OLLAMA and VLMBATCH_TEST_VLLM hold their URLs.

`URL MODEL` also names the model; otherwise the server's only vision model is used. Without the variables
these tests are skipped, and only the recorded bodies of live servers (tests/wire) are tested.
"""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from relays import ChatRelay, RestartRelay
from running import ran

from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError
from vlmbatch.events import EndpointPaused, Event

BELOW_TIMEOUT_S = 200
"""Less than the usual --timeout: a run that waits for it fails the test."""
NOTICED_S = 20
SAMPLES = Path(__file__).parents[2] / "samples"
NAMED = {"ollama": "VLMBATCH_TEST_OLLAMA", "vllm": "VLMBATCH_TEST_VLLM"}


@pytest.fixture(params=NAMED)
def asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options that select the server named for this backend."""
    typed = os.environ.get(NAMED[request.param], "")
    if not typed:
        pytest.skip(f"{NAMED[request.param]} names no server")
    url, _, model = typed.partition(" ")
    return {"backend": request.param, "base_url": url, "model": model or None}


@pytest.mark.slow
async def test_a_live_server_answers(asked: dict[str, Any]) -> None:
    """A live server answers every sample photo, and reports the tokens of each."""
    done = await ran(str(SAMPLES), **asked, include="photo-*", max_tokens=64, accept="length")
    assert done.error is None
    assert len(done.results) == 3
    for result in done.results:
        assert result.completion is not None, result.failure
        assert result.completion.text.strip()
        assert result.completion.usage.input_tokens > 0


@pytest.mark.slow
async def test_a_live_server_follows_a_schema(asked: dict[str, Any]) -> None:
    """The answer of a live server to a schema is parsed, and has the required field."""
    schema = '{"type":"object","properties":{"subject":{"type":"string"}},"required":["subject"]}'
    done = await ran(str(SAMPLES), **asked, include="photo-cat*", prompt="Name the subject.", schema=schema)
    (result,) = done.results
    assert result.completion is not None, result.failure
    assert result.completion.data["subject"]


@pytest.mark.slow
async def test_a_live_server_keeps_the_order_of_a_schema(asked: dict[str, Any]) -> None:
    """A live server writes the properties of an answer in the order of the schema, not of the alphabet."""
    names = ["reasoning", "colour", "animal"]
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "maxLength": 60} for name in names},
        "required": names,
        "additionalProperties": False,
    }
    prompt = "Which animal is it, and which colour has it? Give a short reason first."
    done = await ran(str(SAMPLES), **asked, include="photo-cat*", prompt=prompt, schema=json.dumps(schema))
    (result,) = done.results
    assert result.completion is not None, result.failure
    assert list(result.completion.data) == names


@pytest.mark.slow
@pytest.mark.parametrize("streams", [False, True])
async def test_a_live_server_is_read_with_and_without_a_stream(asked: dict[str, Any], streams: bool) -> None:
    """A live server replies with one object, and its stream, if something turns that on, is read as well."""
    with ChatRelay(asked["base_url"], streams=streams) as relay:
        asked |= {"base_url": relay.url, "max_tokens": 64, "accept": "length"}
        done = await ran(str(SAMPLES), **asked, include="photo-cat*", prompt="Which animal is it?")
    (result,) = done.results
    assert result.completion is not None, result.failure
    assert result.completion.text.strip()
    kinds = {kind for kind, _ in relay.replies}
    if streams:
        assert kinds & {"text/event-stream", "application/x-ndjson"}
    else:
        assert kinds == {"application/json"}
        assert all(isinstance(json.loads(body), dict) for _, body in relay.replies)


@pytest.mark.slow
async def test_a_live_ollama_accepts_a_keep_alive(asked: dict[str, Any]) -> None:
    """A live Ollama accepts `--keep-alive 5m`; `1d`, which it would refuse, is refused before any request."""
    if asked["backend"] != "ollama":
        pytest.skip("--keep-alive is for Ollama")
    asked |= {"include": "photo-cat*", "max_tokens": 16, "accept": "length"}
    done = await ran(str(SAMPLES), **asked, keep_alive="5m")
    assert [result.failure for result in done.results] == [None]
    with pytest.raises(ConfigError, match="--keep-alive 1d"):
        await ran(str(SAMPLES), **asked, keep_alive="1d")


@pytest.mark.slow
async def test_requests_that_hang_over_a_restart_are_sent_again(
    asked: dict[str, Any], photos: Callable[..., Path]
) -> None:
    """If a live server comes back and its old connections stay silent, all images are answered soon."""
    photos(8, (256, 256))
    paused, first = asyncio.Event(), asyncio.Event()

    def watch(event: Event) -> None:
        if isinstance(event, EndpointPaused):
            paused.set()

    async with RestartRelay(asked["base_url"]) as relay:
        asked |= {"base_url": relay.url, "concurrency": 2, "max_tokens": 64, "accept": "length"}
        batch = Batch(RunConfig.of("photos", **asked), [watch])

        async def restart() -> None:
            await first.wait()
            relay.go_away()
            await asyncio.wait([asyncio.ensure_future(paused.wait())], timeout=NOTICED_S)
            await relay.come_back()

        failures = []
        async with asyncio.timeout(BELOW_TIMEOUT_S), asyncio.TaskGroup() as group:
            group.create_task(restart())
            async for result in batch:
                failures.append(result.failure)
                first.set()
    assert failures == [None] * 8
