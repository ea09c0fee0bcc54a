"""Bad requests of one client of a session: they fail alone, and the requests of other clients go on."""

import asyncio
from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple

import pytest
from endpoint import Endpoint, Received
from endpoint.modes import RUNNER_STOPPED
from endpoint.questions import texts
from endpoint.wires import error
from pipeline.test_session import encoded, until
from running import briefly

from vlmbatch.config import RunConfig
from vlmbatch.events import EndpointPaused, Event, Notice
from vlmbatch.pipeline.session import Session, opened
from vlmbatch.records import Failure

LARGE = 2**40


class Bad(NamedTuple):
    """Options that the endpoint refuses, its reply, and the kinds of the failure."""

    options: Mapping[str, Any]
    status: int
    words: str
    kind: str
    backend: str = "vllm"


BAD: dict[str, Bad] = {
    "max-tokens": Bad(
        {"max_tokens": 100_000},
        400,
        "max_tokens=100000 cannot be greater than max_model_len=8192. Please request fewer output tokens.",
        "bad_config",
    ),
    "seed": Bad(
        {"seed": LARGE},
        400,
        "1 validation error: ('body', 'seed') Input should be less than or equal to 2147483647",
        "rejected",
    ),
    "temperature": Bad({"temperature": 1.9}, 400, "temperature must be in [0, 1]", "bad_config"),
    "schema": Bad(
        {"schema": {"type": "object"}},
        400,
        "JSON schema conversion failed: Unrecognized schema",
        "bad_config",
    ),
    "logprobs": Bad({"logprobs": 20}, 400, "Requested sample logprobs of 20 exceeds: 5", "rejected"),
    "logprobs-404": Bad({"logprobs": 3}, 404, "no provider that supports logprobs was found", "rejected"),
    "system": Bad({"system": "Be terse."}, 400, "System role not supported", "rejected"),
    "prompt-403": Bad({"prompt": "' OR 1=1; DROP TABLE"}, 403, "blocked by the firewall", "rejected"),
    "failing": Bad({"prompt": "fail"}, 500, "internal error", "server_error"),
    "crash": Bad({"prompt": "crash"}, 500, RUNNER_STOPPED, "crash", "ollama"),
    "num-ctx": Bad(
        {"num_ctx": 900_000},
        500,
        "model requires more system memory (931.5 GiB) than is available (15.2 GiB)",
        "rejected",
        "ollama",
    ),
    "seed-ollama": Bad({"seed": LARGE}, 500, 'option "seed" must be of type integer', "bad_config", "ollama"),
}


class Shared:
    """A session at an endpoint that refuses requests with bad options, and what it reported."""

    def __init__(self, endpoint: Endpoint, backend: str) -> None:
        self.events: list[Event] = []
        options = {"backend": backend, "base_url": endpoint.url, "model": "tiny-vision", "concurrency": 16}
        options |= {"retries": 2}
        self.opening = opened(RunConfig.of_session(**options), self.events.append, sleep=briefly)

    @property
    def disturbances(self) -> list[Event]:
        """The pauses and losses of the endpoint."""
        lost = (each for each in self.events if isinstance(each, Notice) and "no more images" in each.message)
        return [*lost, *(each for each in self.events if isinstance(each, EndpointPaused))]


def has(request: Received, options: Mapping[str, Any]) -> bool:
    """Whether a request has these options of a question."""
    sent = {
        **request.body,
        **request.body.get("options", {}),
        "schema": {"type": "object"} if "response_format" in request.body else None,
        "system": next(iter(texts(request, "system")), None),
        "prompt": texts(request, "user")[0],
        "logprobs": request.body.get("top_logprobs"),
    }
    return all(sent.get(name) == value for name, value in options.items())


@pytest.mark.parametrize("name", BAD)
async def test_bad_options_fail_alone(endpoint: Endpoint, name: str) -> None:
    """A client repeats a request that the endpoint refuses: each fails, and no other client has a pause."""
    bad = BAD[name]
    wire = "ollama" if bad.backend == "ollama" else "openai"
    endpoint.refusal = lambda request: (
        error(wire, bad.status, bad.words) if has(request, bad.options) else None
    )
    endpoint.script = lambda request: "ok" if has(request, bad.options) else "slow:0.02"
    shared, failures, numbers = Shared(endpoint, bad.backend), list[Failure | None](), count()

    async def misbehave(session: Session) -> None:
        question = session.question(**bad.options).within("a")
        while True:
            number = next(numbers)
            image = encoded((number % 256, number // 256, 1))
            result = await session.answer(image, question, image_id=str(number))
            failures.append(result.failure)

    async with shared.opening as session:
        usual = session.question(temperature=0.5, seed=7, max_tokens=900).within("b")
        clients = [asyncio.create_task(misbehave(session)) for _ in range(8)]
        answers = [await session.answer(encoded((n, n, 255)), usual) for n in range(12)]
        await until(lambda: len(failures) >= 8 or any(client.done() for client in clients))
        for client in clients:
            client.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        assert session.state.up
    assert [each for each in ended if not isinstance(each, asyncio.CancelledError)] == []
    assert [(answer.ok, answer.warnings) for answer in answers] == [(True, ())] * 12
    assert {failure and failure.kind for failure in failures} == {bad.kind}
    assert shared.disturbances == []
    sent = [request.body.get("options") or request.body for request in endpoint.questions]
    ours = [body for body in sent if body.get("seed") == 7]
    assert {(body["temperature"], body.get("max_tokens", 900)) for body in ours} == {(0.5, 900)}


async def test_an_image_that_kills_the_engine_fails_alone(endpoint: Endpoint) -> None:
    """While the image of one client kills the engine each time, every other client gets its answers."""
    crash = {"prompt": "crash"}
    endpoint.script = lambda request: "crash_neighbours:0.1:500" if has(request, crash) else "ok"
    async with Shared(endpoint, "vllm").opening as session:
        usual, bad = session.question().within("b"), session.question(**crash).within("a")
        killing = asyncio.create_task(session.answer(encoded((1, 1, 1)), bad))
        calls = [session.answer(encoded((n, n, 255)), usual) for n in range(30)]
        answers = await asyncio.gather(*calls)
        failure = (await killing).failure
        assert (await session.answer(encoded((9, 9, 9)), usual)).ok
    assert [answer.failure for answer in answers] == [None] * 30
    assert (failure and failure.kind, endpoint.crashes > 1) == ("crash", True)
