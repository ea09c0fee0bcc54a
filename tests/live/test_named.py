"""Real servers that the user names: VLMBATCH_TEST_OLLAMA and VLMBATCH_TEST_VLLM hold their URLs.

`URL MODEL` also names the model; otherwise the server's only vision model is used. Without the variables
these tests are skipped, and only the recorded bodies of live servers (tests/wire) are tested.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from running import ran

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
