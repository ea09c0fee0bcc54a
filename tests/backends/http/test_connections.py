"""Connections that are pooled, lost, slow, or go through a proxy, for both HTTP wires."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from backend_contract import KINDS, babbling, question, reply
from endpoint import Received
from loop_clock import LoopClock

from vlmbatch.backends.http.deadlines import Deadlines, single_deadline
from vlmbatch.backends.http.proxies import proxy_note
from vlmbatch.errors import StaleConnectionError, TransientError

WIRES = pytest.mark.parametrize("name", ["ollama", "openai"])


@WIRES
async def test_a_kept_connection_that_is_reset_is_stale(name: str) -> None:
    """A reset of a reused connection before any byte of the reply is a StaleConnectionError."""
    with KINDS[name].endpoint(script=["ok", "rst"]) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            await backend.preflight()
            await backend.complete(question())
            with pytest.raises(StaleConnectionError):
                await backend.complete(question())


@WIRES
@pytest.mark.parametrize("mode", ["rst", "closenoresp"])
async def test_a_fresh_connection_that_is_lost_is_not(name: str, mode: str) -> None:
    """A lost new connection is not stale: the server had accepted the request and may have crashed on it."""
    with KINDS[name].endpoint(script=[mode]) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            with pytest.raises(TransientError) as caught:
                await backend.complete(question())
    assert not isinstance(caught.value, StaleConnectionError)
    assert caught.value.kind == "connection"


@WIRES
async def test_a_reply_that_breaks_off_is_not(name: str) -> None:
    """A reply that breaks off is not stale: the server had received the request."""
    with KINDS[name].endpoint(script=["ok", "shortbody"]) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            await backend.complete(question())
            with pytest.raises(TransientError) as caught:
                await backend.complete(question())
    assert not isinstance(caught.value, StaleConnectionError)


@WIRES
async def test_a_kept_connection_that_sends_garbage_is_not(name: str) -> None:
    """A reply that is not HTTP is not stale: the server had received the request."""
    well = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    async with babbling(well, b"SSH-2.0-OpenSSH_9.9\r\n\r\n") as url, KINDS[name].open(url) as backend:
        await backend.probe()
        with pytest.raises(TransientError) as caught:
            await backend.probe()
    assert not isinstance(caught.value, StaleConnectionError)


async def test_a_connection_that_aiohttp_reopened_is_not() -> None:
    """If aiohttp resends a request over a new connection and that is lost too, it is not stale."""
    with KINDS["openai"].endpoint() as endpoint:
        async with KINDS["openai"].open(endpoint.url) as backend:
            await backend.probe()
            endpoint.routes = {"/health": "rst"}
            with pytest.raises(TransientError) as caught:
                await backend.probe()
    assert len(endpoint.requests) == 3
    assert not isinstance(caught.value, StaleConnectionError)


@WIRES
async def test_requests_that_queue_do_not_time_out(name: str) -> None:
    """Eight requests to a server with one slot take longer than the deadline, and all are answered."""
    clock, turns = LoopClock(), threading.Semaphore(0)

    def answer(request: Received) -> str:
        turns.acquire(timeout=120)
        return "A cat."

    with KINDS[name].endpoint(slots=1, script=["held"] * 8, answer=answer) as endpoint:
        async with KINDS[name].open(endpoint.url, timeout=1000) as backend:
            left = {asyncio.create_task(backend.complete(question())) for _ in range(8)}
            await asyncio.to_thread(endpoint.until, lambda: endpoint.open_questions == 8)
            endpoint.released = True
            for _ in range(8):
                clock.skip(400)
                turns.release()
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                assert [task.result().text for task in done] == ["A cat."]
    assert not left


@WIRES
@pytest.mark.parametrize("mode", ["hang", "trickle"])
async def test_a_request_that_hangs_ends_while_others_are_answered(name: str, mode: str) -> None:
    """Each other request extends a deadline only once: a request that hangs still ends."""
    clock = LoopClock()
    with KINDS[name].endpoint(script=[mode]) as endpoint:
        async with KINDS[name].open(endpoint.url, timeout=1000) as backend:
            hanging = asyncio.create_task(backend.complete(question()))
            await asyncio.to_thread(endpoint.until, lambda: len(endpoint.questions) == 1)
            for _ in range(4):
                assert (await backend.complete(question())).text
                clock.skip(400)
            while not hanging.done():  # the first long step of the clock looks like a pause of the process
                await asyncio.sleep(0.01)
                clock.skip(400)
            with pytest.raises(TransientError, match=r"within 1000 s"):
                await hanging


@pytest.mark.parametrize("within", [Deadlines().within, single_deadline])
async def test_a_pause_of_the_process_costs_no_request_its_time(
    within: Callable[[float], AbstractAsyncContextManager[None]],
) -> None:
    """After the first pause a request has its whole time again; after the second one it ends."""
    clock, answered = LoopClock(), asyncio.Event()

    async def request() -> None:
        async with within(1000):
            await answered.wait()

    async def pause() -> None:
        clock.skip(5000)
        for _ in range(10):
            await asyncio.sleep(0)

    hanging = asyncio.create_task(request())
    await asyncio.sleep(0)
    await pause()
    assert not hanging.done()
    await pause()
    with pytest.raises(TimeoutError):
        await hanging
    good = asyncio.create_task(request())
    await asyncio.sleep(0)
    await pause()
    answered.set()
    await good


async def test_a_deadline_starts_anew_only_behind_an_answer() -> None:
    """A request that fails, for example at its own deadline, extends no other deadline."""
    deadlines = Deadlines()

    async def never() -> None:
        async with deadlines.within(0.05):
            await asyncio.Event().wait()

    ended = await asyncio.wait_for(asyncio.gather(*(never() for _ in range(5)), return_exceptions=True), 240)
    assert [type(error) for error in ended] == [TimeoutError] * 5


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A monkeypatch whose environment has no proxies yet."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "login", ["http://me:s3cret@", "me:s3cret@", ""], ids=["URL", "no scheme", "no login"]
)
def test_a_proxy_is_shown_without_its_password(proxies: pytest.MonkeyPatch, login: str) -> None:
    """A proxy is a note for the user, without its password; requests to this machine use none."""
    assert proxy_note("http://models.example:8000/v1") == ()
    proxies.setenv("http_proxy", f"{login}proxy.example:3128")
    assert proxy_note("http://models.example:8000/v1") == (
        "requests go through the proxy http://proxy.example:3128",
    )
    assert proxy_note("http://127.0.0.1:8000/v1") == ()
    proxies.setenv("no_proxy", "models.example")
    assert proxy_note("http://models.example:8000/v1") == ()


@WIRES
@pytest.mark.parametrize("variable", ["all_proxy", "http_proxy"])
async def test_a_proxy_that_is_used_is_shown(proxies: pytest.MonkeyPatch, name: str, variable: str) -> None:
    """The notes of an endpoint name its proxy, set for the URL's scheme or for all."""
    listed = {"models": [{"name": "tiny-vision:latest"}], "data": [{"id": "tiny-vision"}]}
    async with babbling(reply({**listed, "capabilities": ["vision"]})) as proxy:
        proxies.setenv(variable, proxy)
        async with KINDS[name].open("http://model.invalid:1234") as backend:
            found = await backend.preflight()
    assert found.notes == (f"requests go through the proxy {proxy}",)
