"""Connections that are kept, lost, slow, or led through a proxy, on both HTTP wires."""

import asyncio

import pytest
from backend_contract import KINDS, question

from vlmbatch.backends.deadlines import Deadlines
from vlmbatch.backends.wire import proxy_note
from vlmbatch.errors import StaleConnectionError, TransientError

WIRES = pytest.mark.parametrize("name", ["ollama", "openai"])


@WIRES
async def test_a_kept_connection_that_is_reset_is_stale(name: str) -> None:
    """Reset before a byte of the reply, on a connection from an earlier request: nothing was heard of it."""
    with KINDS[name].endpoint(script=["ok", "rst"]) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            await backend.preflight()
            await backend.complete(question())
            with pytest.raises(StaleConnectionError):
                await backend.complete(question())


@WIRES
@pytest.mark.parametrize("mode", ["rst", "closenoresp"])
async def test_a_fresh_connection_that_is_lost_is_not(name: str, mode: str) -> None:
    """The server had taken this request: it may have died of it."""
    with KINDS[name].endpoint(script=[mode]) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            with pytest.raises(TransientError) as caught:
                await backend.complete(question())
    assert not isinstance(caught.value, StaleConnectionError)
    assert caught.value.kind == "connection"


@WIRES
async def test_a_reply_that_breaks_off_is_not(name: str) -> None:
    """A reply that had begun came from somebody who heard the request."""
    with KINDS[name].endpoint(script=["ok", "shortbody"]) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            await backend.complete(question())
            with pytest.raises(TransientError) as caught:
                await backend.complete(question())
    assert not isinstance(caught.value, StaleConnectionError)


@WIRES
async def test_requests_that_queue_do_not_time_out(name: str) -> None:
    """Eight requests to a server of one slot take longer than the deadline, and all are answered."""
    with KINDS[name].endpoint(slots=1, delay=0.15) as endpoint:
        async with KINDS[name].open(endpoint.url, timeout=0.6) as backend:
            answers = await asyncio.gather(*(backend.complete(question()) for _ in range(8)))
    assert len(answers) == 8


@WIRES
async def test_a_request_that_hangs_ends_while_others_are_answered(name: str) -> None:
    """Others give a request more time only once each: one that hangs ends all the same."""
    with KINDS[name].endpoint(script=["hang"]) as endpoint:
        async with KINDS[name].open(endpoint.url, timeout=0.8) as backend:
            hanging = asyncio.create_task(backend.complete(question()))
            await asyncio.to_thread(endpoint.until, lambda: len(endpoint.questions) == 1)
            while not hanging.done():
                await backend.complete(question())
            with pytest.raises(TransientError, match=r"within 0\.8 s"):
                await hanging


async def test_a_deadline_starts_anew_only_behind_an_answer() -> None:
    """A failure in front, such as a deadline of its own, moves nobody's deadline."""
    deadlines = Deadlines()

    async def never() -> None:
        async with deadlines.within(0.05):
            await asyncio.Event().wait()

    ended = await asyncio.wait_for(asyncio.gather(*(never() for _ in range(5)), return_exceptions=True), 10)
    assert [type(error) for error in ended] == [TimeoutError] * 5


def test_a_proxy_is_told_of_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that leave through a proxy are a note for the user; those to this machine do not."""
    for variable in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    assert proxy_note("http://models.example:8000/v1") == ()
    monkeypatch.setenv("http_proxy", "http://me:s3cret@proxy.example:3128")
    assert proxy_note("http://models.example:8000/v1") == (
        "requests go through the proxy http://proxy.example:3128",
    )
    assert proxy_note("http://127.0.0.1:8000/v1") == ()
    monkeypatch.setenv("no_proxy", "models.example")
    assert proxy_note("http://models.example:8000/v1") == ()
