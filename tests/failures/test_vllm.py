"""vLLM's failures, by their number in docs/failures.md."""

from collections.abc import Callable
from pathlib import Path

import pytest
from endpoint import Endpoint
from failing import Failing

from vlmbatch.errors import FatalBackendError
from vlmbatch.events import EndpointPaused

Photos = Callable[..., Path]


@pytest.fixture
def failing(photos: Photos, endpoint: Endpoint) -> Failing:
    """Runs over six photos."""
    return Failing(photos, endpoint, "vllm")


async def test_v1_unknown_model(failing: Failing) -> None:
    """A model that is not served ends the run, for both shapes of the error."""
    failing.options["model"] = "nope"
    assert isinstance((await failing.run()).error, FatalBackendError)
    failing.options["model"] = "tiny-vision"
    for mode in ("404-model", "old_vllm_error_shape"):
        failing.endpoint.requests.clear()
        await failing.ends(mode, "model_not_found")


async def test_v2_not_multimodal(failing: Failing) -> None:
    """A model without vision ends the run."""
    await failing.ends("not_multimodal", "no_vision")


async def test_v3_images_per_request(failing: Failing) -> None:
    """A server that accepts no picture in a request ends the run, and the error names its option."""
    assert "--limit-mm-per-prompt" in str((await failing.ends("too_many_images", "bad_config")).error)


async def test_v4_context(failing: Failing) -> None:
    """A full context is retried with a smaller picture, in any wording; a too large --max-tokens is fatal."""
    for number in range(1, 8):
        failing.endpoint.requests.clear()
        done = await failing.passes(f"context:{number}", attempts=2)
        assert any("smaller picture" in w for r in done.results for w in r.warnings)
    failing.endpoint.requests.clear()
    await failing.ends("context:8", "bad_config")


async def test_v5_engine_dead(failing: Failing) -> None:
    """A dead engine pauses the run, and all images are answered; if it stays dead, the run is unavailable."""
    done = await failing.passes("engine_dead", "empty500", "down")
    assert len(done.of(EndpointPaused)) >= 1
    failing.endpoint.routes["/health"] = "503-empty"
    await failing.gives_up("engine_dead")


async def test_v7_processor(failing: Failing) -> None:
    """A picture that the processor refuses fails alone, and no sent picture has a side below 32 pixels."""
    await failing.fails_alone("processor", "rejected")
    assert all(min(p.width, p.height) >= 32 for q in failing.endpoint.questions for p in q.pictures)


async def test_v8_undecodable(failing: Failing) -> None:
    """A picture that the server cannot decode fails alone, whatever the status is."""
    for mode, kind, requests in (
        ("cannot_identify", "rejected", 1),
        ("bomb", "too_large", 1),
        ("not_base64", "rejected", 2),  # after another picture was accepted
    ):
        failing.endpoint.requests.clear()
        await failing.fails_alone(mode, kind, requests=requests)  # type: ignore[arg-type]  # words of FailureKind


async def test_v9_full_queue(failing: Failing) -> None:
    """A burst of 503 without Retry-After pauses the run and costs no image an attempt."""
    done = await failing.passes(*["503-busy"] * 8, attempts=1)
    assert len(done.of(EndpointPaused)) >= 1


async def test_v11_abort(failing: Failing) -> None:
    """An answer that a restart aborted is retried."""
    await failing.passes("finish_abort", attempts=2)


async def test_v12_length(failing: Failing) -> None:
    """A cut answer fails alone after its retries; --accept length accepts it with a warning."""
    await failing.fails_alone("length", "truncated", requests=3)
    failing.endpoint.script = lambda request: "length"
    done = await failing.run(accept="length")
    assert [r.ok for r in done.results] == [True] * 6
    assert all(r.completion and r.completion.finish_reason == "length" for r in done.results)
    assert all("accepted although" in r.warnings[0] for r in done.results)


async def test_v13_finish_error(failing: Failing) -> None:
    """An answer with the finish reason `error` under status 200 is retried."""
    await failing.passes("finish_error", attempts=2)


async def test_v14_null_content(failing: Failing) -> None:
    """An answer with reasoning and null content is retried without thinking."""
    done = await failing.passes("null_content", attempts=2)
    assert any("without thinking" in w for r in done.results for w in r.warnings)


async def test_v15_stream_errors(failing: Failing) -> None:
    """An error line in a stream, or a stream without its end, is retried."""
    await failing.passes("ndjson_error_midstream", "ndjson_no_done")
