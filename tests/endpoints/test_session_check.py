"""Refusals in a session: whether the request of one caller or the whole endpoint is the reason."""

import asyncio
from dataclasses import replace

import pytest
from backend_contract import KINDS, question
from endpoint import Endpoint, Received
from endpoint.messages import Reply
from endpoint.wires import error

from vlmbatch.config import RunConfig
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.session_check import WELL_S, SessionCheck
from vlmbatch.errors import BackendError, FatalBackendError, RejectedError, UnavailableError
from vlmbatch.events import ignore

BAD = replace(question(), prompt="bad")
REFUSED = {
    "400": (400, "the request is not what it should be"),
    "401": (401, "Invalid API Key"),
    "404": (404, "Not Found"),
    "option": (400, "temperature must be 1"),
}


class Clock:
    """A clock that stands still until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def checked(url: str, clock: Clock) -> SessionCheck:
    """The backend of a session, with its check."""
    config = RunConfig.of_session(backend="vllm", base_url=url, model="tiny-vision")
    return SessionCheck(KINDS["vllm"].open(url), config, Bugs(ignore), clock)


def is_bad(request: Received) -> bool:
    return "bad" in str(request.body["messages"])


@pytest.mark.parametrize("name", REFUSED)
async def test_many_refused_requests_cost_one_question(endpoint: Endpoint, name: str) -> None:
    """Refused requests, one by one and at once, are blamed after one question of the session for all."""
    refused = error("openai", *REFUSED[name])
    endpoint.refusal = lambda request: refused if not request.is_canary and is_bad(request) else None
    async with checked(endpoint.url, clock := Clock()) as backend:
        errors = await asyncio.gather(*(backend.complete(BAD) for _ in range(6)), return_exceptions=True)
        for _ in range(6):
            with pytest.raises(RejectedError):
                await backend.complete(BAD)
        assert len(endpoint.canaries) == 1
        clock.now += WELL_S
        await backend.complete(question())
        with pytest.raises(RejectedError):
            await backend.complete(BAD)
        assert len(endpoint.canaries) == 1
        clock.now += WELL_S
        with pytest.raises(RejectedError):
            await backend.complete(BAD)
        assert len(endpoint.canaries) == 2
    assert {type(each) for each in errors} == {RejectedError}
    assert not any(each.by_status for each in errors if isinstance(each, BackendError))


@pytest.mark.parametrize("name", REFUSED)
async def test_an_endpoint_that_refuses_all_requests(endpoint: Endpoint, name: str) -> None:
    """If the session's own question is refused, too, the endpoint is the reason, and not the request."""
    refused = error("openai", *REFUSED[name])
    closed = [False]
    endpoint.refusal = lambda request: refused if closed[0] else None
    async with checked(endpoint.url, clock := Clock()) as backend:
        await backend.complete(replace(question(), accept=frozenset(("length", "loop", "empty"))))
        await backend.complete(question())
        clock.now += WELL_S
        closed[0] = True
        expected = FatalBackendError if name == "option" else UnavailableError
        errors = await asyncio.gather(
            *(backend.complete(question()) for _ in range(6)), return_exceptions=True
        )
    assert {type(each) for each in errors} == {expected}
    assert len(endpoint.canaries) == 1


async def test_a_refusal_that_passes(endpoint: Endpoint) -> None:
    """A single refusal, of which a question cures the endpoint, costs the caller nothing."""
    left = [error("openai", 400, "Model unloaded.")]
    endpoint.refusal = lambda request: left.pop() if left else None
    async with checked(endpoint.url, Clock()) as backend:
        assert (await backend.complete(question())).text
    assert (len(endpoint.questions), len(endpoint.canaries)) == (2, 1)


async def test_another_refusal_of_the_own_question_accuses_no_endpoint(endpoint: Endpoint) -> None:
    """If the session's own question is refused for another reason, a refused request fails alone."""

    def refusal(request: Received) -> Reply | None:
        if request.is_canary:
            return error("openai", 400, "pictures must be 256 pixels wide")
        return error("openai", 400, "temperature must be 1") if is_bad(request) else None

    endpoint.refusal = refusal
    async with checked(endpoint.url, Clock()) as backend:
        with pytest.raises(RejectedError, match="temperature must be 1"):
            await backend.complete(BAD)
