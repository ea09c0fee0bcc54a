"""A request that is changed after a bad answer: if the change is refused, the bad answer is the failure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Received
from endpoint.messages import Reply
from endpoint.wires import as_json, error
from running import ran

from vlmbatch.errors import FailureKind

Photos = Callable[..., Path]
REFUSALS: list[tuple[str, Reply]] = [
    ("vllm", as_json(400, [{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}])),
    ("vllm", as_json(422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]})),
    ("vllm", error("openai", 400, "this request is not possible")),
    ("vllm", error("openai", 400, "response_format must be of type other", "unsupported_value")),
    ("vllm", error("openai", 501, "not implemented")),
    ("ollama", error("ollama", 400, "seed is no option of this model")),
    ("ollama", error("ollama", 500, 'option "seed" must be of type string')),
]


@pytest.mark.parametrize("mode", ["length", "loop", "empty"])
@pytest.mark.parametrize(("backend", "reply"), REFUSALS)
async def test_a_refused_change_keeps_the_bad_answer(
    photos: Photos, endpoint: Endpoint, backend: str, reply: Reply, mode: str
) -> None:
    """If an endpoint refuses the changed request in any words, kind and text are those of the bad answer."""
    photos(3)
    kinds: dict[str, FailureKind] = {"length": "truncated", "loop": "degenerate", "empty": "empty"}

    def refusal(request: Received) -> Reply | None:
        return reply if "seed" in request.body | request.body.get("options", {}) else None

    def script(request: Received) -> str:
        return "ok" if "seed" in request.body | request.body.get("options", {}) else mode

    endpoint.script, endpoint.refusal = script, refusal
    done = await ran(backend=backend, base_url=endpoint.url, model="tiny-vision")
    assert done.error is None
    failures = [result.failure for result in done.results if result.failure]
    assert [failure.kind for failure in failures] == [kinds[mode]] * 3
    assert all(failure.partial for failure in failures) is (mode != "empty")


@pytest.mark.parametrize(("mode", "kind"), [("500", "server_error"), ("content_filter", "refused")])
async def test_another_failure_keeps_the_text(
    photos: Photos, endpoint: Endpoint, mode: str, kind: FailureKind
) -> None:
    """If the second try fails in another way, its failure has the text of the first one."""
    photos(1)
    endpoint.script = lambda request: mode if "seed" in request.body else "length"
    done = await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision", retries=2)
    [failure] = [result.failure for result in done.results]
    assert failure is not None
    assert (failure.kind, failure.partial) == (kind, "A picture of a")


async def test_a_change_without_effect_is_answered(photos: Photos, endpoint: Endpoint) -> None:
    """If only the seed of a retry is refused, it is sent with the rest of the change, and may be answered."""
    photos(1)
    seen: list[dict[str, Any]] = []

    def script(request: Received) -> str:
        seen.append(request.body)
        return "length" if request.body["temperature"] == 0 else "ok"

    endpoint.script = script
    endpoint.refusal = lambda request: (
        error("openai", 400, "unknown: seed") if "seed" in request.body else None
    )
    done = await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision")
    assert [result.ok for result in done.results] == [True]
    assert [("seed" in body, body["temperature"]) for body in seen] == [(False, 0), (True, 0.2), (False, 0.2)]
