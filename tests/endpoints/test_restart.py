"""A server that is restarted while its old process keeps the connections and never replies to them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, closed_port, question
from certificates import make_certificates
from endpoint import Endpoint, Received
from loop_clock import LoopClock
from outages import back
from running import Ran, briefly, ran

from vlmbatch.backends.http import listening
from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.endpoints import connection_watch
from vlmbatch.endpoints.in_flight import InFlight
from vlmbatch.errors import StaleConnectionError
from vlmbatch.events import EndpointPaused, EndpointResumed, Event, ImageFinished, Notice

Photos = Callable[..., Path]
RESTART = "sigterm_hang"
"""The server stops listening and leaves its requests without a reply; `back` makes it listen again."""
SILENT_S = connection_watch.SILENT_S


@pytest.fixture(autouse=True)
def _soon_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_watch, "SILENT_S", 0.05)


def asking(endpoint: Endpoint, **options: Any) -> dict[str, Any]:
    return {"backend": "vllm", "base_url": endpoint.url, "model": "tiny-vision", **options}


def restarts(done: Ran) -> list[str]:
    return [e.message for e in done.events if isinstance(e, Notice) and "was restarted" in e.message]


@pytest.mark.parametrize("options", [{}, {"canary": False}, {"concurrency": 1}, {"backend": "ollama"}])
async def test_requests_to_the_old_process_are_sent_again(
    photos: Photos, endpoint: Endpoint, options: dict[str, Any]
) -> None:
    """If all slots wait for a process that is gone, the run finds that out, and no image loses an attempt."""
    photos(6)
    endpoint.script = ["ok", "ok", RESTART]
    done = await ran(**{**asking(endpoint, concurrency=2), **options}, on_event=back(endpoint))
    assert done.error is None
    assert [(r.ok, r.attempts) for r in done.results] == [(True, 1)] * 6
    assert len(done.of(EndpointPaused)) == len(done.of(EndpointResumed)) == len(restarts(done)) == 1


async def test_a_restart_of_a_tls_server(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TLS server is tried with a whole handshake, and its restart costs no image an attempt."""
    monkeypatch.setattr(listening, "TLS_EVERY_S", 0.01)
    photos(6)
    certificates = make_certificates(tmp_path)
    with Endpoint(tls=certificates.server(), script=["ok", "ok", RESTART]) as endpoint:
        options = asking(endpoint, concurrency=1, ca_cert=certificates.path("ca.pem"))
        done = await ran(**options, on_event=back(endpoint))
    assert done.error is None
    assert [(r.ok, r.attempts) for r in done.results] == [(True, 1)] * 6
    assert len(restarts(done)) == 1


async def test_a_tls_server_is_tried_again_later(tmp_path: Path) -> None:
    """Each look at a TLS server costs a handshake, so after a good one the next is seconds later."""
    context = make_certificates(tmp_path).server()
    with Endpoint(tls=context) as endpoint:
        probe = listening.ListenProbe(endpoint.url, None)
        assert [await probe.listens() for _ in range(3)] == [True] * 3
        await asyncio.to_thread(endpoint.until, lambda: context.session_stats()["accept_good"])
        endpoint.down()
        assert endpoint.connections == 1
        probe = listening.ListenProbe(endpoint.url, None)
        assert [await probe.listens() for _ in range(3)] == [False] * 3


async def test_a_quick_restart_is_noticed(
    photos: Photos, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its real waits, a run notices that no server listened for little more than a second."""
    monkeypatch.setattr(connection_watch, "SILENT_S", SILENT_S)
    photos(2)
    endpoint.script = [RESTART]
    clock, waits = LoopClock(), list[float]()

    async def sleep(seconds: float) -> None:
        if endpoint.is_down and seconds in (connection_watch.LOOK_S, connection_watch.AGAIN_S):
            clock.skip(seconds)
            waits.append(seconds)
        await briefly(seconds)

    config = RunConfig.of("photos", **asking(endpoint, concurrency=1))
    batch = Batch(config, [back(endpoint)], sleep=sleep)
    assert [(r.ok, r.attempts) async for r in batch] == [(True, 1)] * 2
    assert 0 < sum(waits) <= 1.4


class SilentConnections(Endpoint):
    """An endpoint whose old process also keeps its idle connections open."""

    async def _go_deaf(self) -> None:
        await self._stop_listening()


async def test_an_idle_connection_to_the_old_process(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe over an idle connection to the process that is gone is sent again over a new one."""
    monkeypatch.setattr(connection_watch, "REUSED_S", 0.1)
    photos(2)
    with SilentConnections(script=["ok", RESTART]) as endpoint:
        done = await ran(**asking(endpoint, concurrency=2), on_event=back(endpoint))
    assert [(r.ok, r.attempts) for r in done.results] == [(True, 1)] * 2


async def test_each_of_several_restarts_costs_nothing(photos: Photos, endpoint: Endpoint) -> None:
    """Images that lose their request to three restarts in a row are still answered."""
    photos(4)
    endpoint.script = ["ok", RESTART, RESTART, RESTART]
    done = await ran(**asking(endpoint, concurrency=1), on_event=back(endpoint))
    assert done.error is None
    assert [r.ok for r in done.results] == [True] * 4
    assert len(restarts(done)) == 3


@pytest.mark.usefixtures("all_from_the_start")
async def test_a_restart_of_one_of_two_endpoints(photos: Photos, endpoint: Endpoint) -> None:
    """The other endpoint goes on, and the requests to the restarted one are sent again."""
    photos(8)
    with Endpoint() as other:
        endpoint.script = [RESTART]
        other.script = ["held"] * 8

        def act(event: Event) -> None:
            back(endpoint)(event)
            other.released = other.released or isinstance(event, EndpointPaused)

        options = {**asking(endpoint, concurrency=1), "base_url": (endpoint.url, other.url)}
        done = await ran(**options, on_event=act)
    assert len(restarts(done)) == 1
    assert done.error is None
    assert [r.ok for r in done.results] == [True] * 8


class HangingProof(Endpoint):
    """An endpoint that is restarted during its first canary."""

    def _mode(self, request: Received) -> str:
        return RESTART if request.is_canary and not self.canaries else super()._mode(request)


async def test_a_restart_during_the_canary(photos: Photos) -> None:
    """A canary at a process that is gone is asked again as soon as the new process answers."""
    photos(2)
    with HangingProof() as endpoint:
        done = await ran(**asking(endpoint), on_event=back(endpoint))
    assert done.error is None
    assert [r.ok for r in done.results] == [True] * 2
    assert not any("could not prove" in e.message for e in done.events if isinstance(e, Notice))


async def test_a_slow_server_keeps_its_requests(photos: Photos, endpoint: Endpoint) -> None:
    """A slow server that accepts connections gets each request once, without a pause."""
    photos(3)
    endpoint.delay = 0.3
    done = await ran(**asking(endpoint, concurrency=1))
    assert [r.ok for r in done.results] == [True] * 3
    assert (len(endpoint.questions), done.of(EndpointPaused)) == (3, [])


class DrainingEndpoint(Endpoint):
    """An endpoint that closes its port at its third question, and still answers those in flight."""

    def _mode(self, request: Received) -> str:
        if request.chat == 2:
            self._spawn(self._drain())
        return "ok" if request.is_canary or (request.chat or 0) < 2 or self.released else "held"

    async def _drain(self) -> None:
        await self._stop_listening()
        for line in self._lines:
            line.stalled = False

    def open_again(self) -> None:
        """Listen again, from any thread."""
        asyncio.run_coroutine_threadsafe(self._go_up(), self._loop)


async def test_a_server_that_closes_gracefully_keeps_its_requests(photos: Photos) -> None:
    """Requests that a closing server still answers are not dropped, although it accepts no connection."""
    photos(6)
    finished: list[Event] = []
    with DrainingEndpoint() as endpoint:

        def act(event: Event) -> None:
            if isinstance(event, EndpointPaused):
                endpoint.released = True  # the old process answers what it has
            if isinstance(event, ImageFinished):
                finished.append(event)
                if len(finished) == 4:
                    endpoint.open_again()

        batch = Batch(RunConfig.of("photos", **asking(endpoint, concurrency=2)), [act], sleep=briefly)
        results = [result async for result in batch]
        assert [result.ok for result in results] == [True] * 6
        assert len(endpoint.questions) == 6


async def test_dropped_requests_are_stale() -> None:
    """drop() ends the requests in flight as free retries, and the backend stays usable."""
    with Endpoint(script=["hang", "hang"]) as endpoint:
        async with KINDS["vllm"].open(endpoint.url) as backend:
            in_flight = InFlight()

            async def ask() -> str:
                async with in_flight.request():
                    return (await backend.complete(question())).text

            assert (in_flight.silent_s, in_flight.drop()) == (0.0, 0)
            asked = [asyncio.create_task(ask()) for _ in range(2)]
            await asyncio.to_thread(endpoint.until, lambda: endpoint.open_questions == 2)
            assert in_flight.silent_s > 0
            assert (in_flight.drop(), in_flight.drop()) == (2, 0)
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(error) for error in ended] == [StaleConnectionError] * 2
            assert in_flight.silent_s == 0.0
            assert await ask()


async def test_a_cancelled_request_is_no_dropped_one() -> None:
    """A request that is cancelled, or that exceeds another time limit, ends as it would without drop()."""
    in_flight, began = InFlight(), asyncio.Event()

    async def hang() -> None:
        async with in_flight.request():
            began.set()
            await asyncio.Event().wait()

    asked = asyncio.create_task(hang())
    await began.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), in_flight.request():
            await asyncio.Event().wait()
    assert in_flight.drop() == 0


@pytest.mark.parametrize("name", ["vllm", "ollama", "auto-vllm"])
async def test_a_closed_port_does_not_listen(name: str) -> None:
    """Only a refused connection shows that no server listens, and no request is sent for that."""
    kind = KINDS[name]
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            sent = len(endpoint.requests)
            assert await backend.listens()
            assert len(endpoint.requests) == sent
            await asyncio.to_thread(endpoint.down)
            assert not await backend.listens()


async def test_an_unknown_state_counts_as_listening() -> None:
    """For an unknown host it is unknown whether the server listens."""
    async with KINDS["vllm"].open("http://nosuchhost.invalid:8000") as backend:
        assert await backend.listens()


async def test_a_proxy_counts_as_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy no connection is tried: only the proxy can open it."""
    with closed_port() as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        async with KINDS["vllm"].open("http://192.0.2.1:8000") as backend:
            assert await backend.listens()
