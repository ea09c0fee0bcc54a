"""Warm-up, health probe and metrics: an odd reply to any of them changes nothing about the images."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from endpoint import Endpoint, Received
from endpoint.messages import Line, Reply, render
from loop_clock import skipping
from running import Ran, ran
from selection import mostly_long

from vlmbatch.backends import confirm
from vlmbatch.backends.http import hints
from vlmbatch.backends.ollama import backend as ollama_backend
from vlmbatch.endpoints import supervisor
from vlmbatch.events import EndpointPaused, EndpointResumed, Event, Notice

Photos = Callable[..., Path]

STREAM = "".join(json.dumps({"message": {"content": ""}, "done": done}) + "\n" for done in (False, True))
PLAIN = "text/plain"
ODD: dict[str, Reply | None] = {
    "404": Reply(status=404, body=b"404 page not found", content_type=PLAIN),
    "401": Reply(status=401, body=b'{"error": "unauthorized"}'),
    "403": Reply(status=403, body=b"", content_type=PLAIN),
    "405": Reply(status=405, body=b'{"detail": "Method Not Allowed"}'),
    "500": Reply(status=500, body=b'{"error": "messages must not be empty"}'),
    "501": Reply(status=501, body=b'{"error": {"message": "not implemented"}}'),
    "503": Reply(status=503, body=b"No server is available", content_type="text/html"),
    "hang": None,
    "reset": None,
    "HTML 200": Reply(status=200, body=b"<html><title>Sign in</title></html>", content_type="text/html"),
    "empty 200": Reply(status=200, body=b"", content_type=PLAIN),
    "wrong JSON": Reply(status=200, body=b"[1, 2]"),
    "stream": Reply(status=200, body=STREAM.encode(), content_type="application/x-ndjson", streamed=True),
}
"""The odd replies of servers to a helper request, by name."""


class OddEndpoint(Endpoint):
    """An endpoint that answers all questions, and the helper requests of one path with an odd reply."""

    def __init__(self, odd: str, path: str) -> None:
        super().__init__(owned_by="me")
        self.odd = odd
        self.path = path
        self.asked = 0
        """How often the odd reply was requested."""

    async def _perform(self, line: Line, request: Received, mode: str) -> bool:
        has_messages = isinstance(request.body, dict) and bool(request.body.get("messages"))
        if request.path != self.path or has_messages:
            return await super()._perform(line, request, mode)
        self.asked += 1
        self.released = True
        reply = ODD[self.odd]
        if reply is not None:
            await line.send(render(reply, request.method))
            return True
        if self.odd == "hang":
            await self._misuse(line, "hang", "")
        line.reset()
        return False


each_odd = pytest.mark.parametrize("odd", mostly_long(ODD, ["404", "hang", "reset", "HTML 200", "stream"]))


def notices(done: Ran, word: str) -> list[str]:
    return [e.message for e in done.events if isinstance(e, Notice) and word in e.message]


def is_whole(done: Ran, images: int) -> None:
    """Every image was answered, and the run ended well."""
    assert done.error is None
    assert [result.failure for result in done.results] == [None] * images


@each_odd
async def test_a_warm_up(photos: Photos, odd: str) -> None:
    """Whatever Ollama replies to the warm-up, the run goes on, with one notice at most."""
    photos(2)
    with OddEndpoint(odd, "/api/chat") as endpoint, skipping(endpoint, supervisor.HINT_S):
        done = await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision")
    is_whole(done, 2)
    assert endpoint.asked == 1
    assert len(notices(done, "warm-up")) <= 1
    assert done.of(EndpointPaused) == []


async def test_a_warm_up_without_a_canary(photos: Photos) -> None:
    """With --no-canary an odd reply to the warm-up changes nothing either."""
    photos(2)
    with OddEndpoint("500", "/api/chat") as endpoint:
        done = await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", canary=False)
    is_whole(done, 2)
    assert len(notices(done, "the first question loads the model")) == 1


async def test_a_warm_up_that_hangs_without_a_canary(photos: Photos) -> None:
    """With --no-canary a warm-up that hangs ends after a model load and the time of one image."""
    photos(2)
    with OddEndpoint("hang", "/api/chat") as endpoint, skipping(endpoint, confirm.cold_s(60)):
        options = {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision"}
        done = await ran(**options, canary=False, timeout=60)
    is_whole(done, 2)


@pytest.mark.parametrize("keep_alive", ["0", "0s", "0m", "500ms"])
async def test_a_warm_up_is_no_unload(photos: Photos, endpoint: Endpoint, keep_alive: str) -> None:
    """With a --keep-alive of less than a second the warm-up has none, since Ollama would unload the model."""
    photos(1)
    options = {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision"}
    is_whole(await ran(**options, keep_alive=keep_alive), 1)
    (warm_up,) = [r for r in endpoint.requests if r.path == "/api/chat" and not r.body["messages"]]
    assert "keep_alive" not in warm_up.body
    assert warm_up.body["stream"] is False
    assert "keep_alive" in endpoint.questions[0].body


@each_odd
@pytest.mark.parametrize("has_canary", [True, False], ids=["canary", "no canary"])
@pytest.mark.parametrize(("backend", "path"), [("openai", "/health"), ("ollama", "/api/version")])
async def test_a_health_probe(photos: Photos, odd: str, has_canary: bool, backend: str, path: str) -> None:
    """After a 429 the run goes on whatever the health probe replies: the canary or the images decide."""
    photos(3)
    before = list[int]()  # preflight asks Ollama for its version
    with OddEndpoint(odd, path) as endpoint, skipping(endpoint, supervisor.HINT_S):
        endpoint.script = ["429:0.01"]
        options = {"backend": backend, "base_url": endpoint.url, "model": "tiny-vision"}

        def count(event: Event) -> None:
            before.extend([endpoint.asked] if isinstance(event, EndpointPaused) else [])

        done = await ran(on_event=count, canary=has_canary, **options)
    is_whole(done, 3)
    assert len(done.of(EndpointPaused)) == len(done.of(EndpointResumed)) == 1
    assert ([endpoint.asked] == before) is has_canary
    assert len(notices(done, "health probe")) <= (0 if has_canary else 1)


async def test_a_pause_without_proof_waits_longer_each_time(photos: Photos) -> None:
    """Without a canary and with a bad health probe, refusals pause again and again, and no image is lost."""
    photos(1)
    with OddEndpoint("503", "/health") as endpoint:
        endpoint.script = ["503-loading"] * 6
        options = {"backend": "openai", "base_url": endpoint.url, "model": "tiny-vision"}
        done = await ran(**options, canary=False)
    is_whole(done, 1)
    assert len(done.of(EndpointPaused)) == 6
    assert len(notices(done, "health probe")) == 1
    assert [r.attempts for r in done.results] == [1]


class UnloadingEndpoint(OddEndpoint):
    """An endpoint that answers the request to unload the model with an odd reply, and all others as usual."""

    async def _perform(self, line: Line, request: Received, mode: str) -> bool:
        if isinstance(request.body, dict) and request.body.get("keep_alive") == 0:
            return await super()._perform(line, request, mode)
        return await Endpoint._perform(self, line, request, mode)


@each_odd
async def test_an_unload(photos: Photos, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    """Whatever Ollama replies to the request to unload the model, the run ends well."""
    monkeypatch.setattr(ollama_backend, "UNLOAD_S", 0.05)
    photos(2)
    with UnloadingEndpoint(odd, "/api/chat") as endpoint:
        done = await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", unload=True)
    is_whole(done, 2)
    assert endpoint.asked == 1
    assert len(notices(done, "has not unloaded the model")) <= 1


@each_odd
async def test_an_answer_that_was_cut_early(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    """Whatever /api/ps gets for an answer that was cut early, the image has failed with the cut text."""
    monkeypatch.setattr(hints, "HINT_S", 0.05)
    photos(1)
    cut = {"message": {"content": "A picture of a"}, "done": True, "done_reason": "length", "eval_count": 4}
    with OddEndpoint(odd, "/api/ps") as endpoint:
        reply = Reply(status=200, body=json.dumps(cut).encode())
        endpoint.refusal = lambda request: None if request.is_canary else reply
        done = await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision")
    assert done.error is None
    assert endpoint.asked > 0
    failures = [result.failure for result in done.results]
    assert [failure and (failure.kind, failure.partial) for failure in failures] == [
        ("truncated", "A picture of a")
    ]


class ProxiedEndpoint(Endpoint):
    """An endpoint that answers the canaries of the proof, and refuses the first three probes after it."""

    odd_mode = "404-route"

    def _mode(self, request: Received) -> str:
        is_refused = request.is_canary and 2 <= len(self.canaries) < 5
        return self.odd_mode if is_refused else super()._mode(request)


@pytest.mark.parametrize("mode", ["401", "403-empty", "404-route", "404-model"])
async def test_a_proxy_that_refuses_during_an_outage(photos: Photos, mode: str) -> None:
    """A probe that is refused like a wrong set-up, as by a proxy without a server, lengthens the pause."""
    photos(3)
    with ProxiedEndpoint(script=["ok", "429:0.01"]) as endpoint:
        endpoint.odd_mode = mode
        done = await ran(backend="openai", base_url=endpoint.url, model="tiny-vision", concurrency=1)
    is_whole(done, 3)
    assert len(endpoint.canaries) > 5, "two of the proof, three that were refused, and the last one"


@each_odd
async def test_metrics(photos: Photos, odd: str) -> None:
    """Whatever /metrics of an unknown server replies, the run goes on without a notice."""
    photos(2)
    with OddEndpoint(odd, "/metrics") as endpoint, skipping(endpoint, supervisor.HINT_S):
        endpoint.script = ["held"] * 2  # until /metrics was asked
        done = await ran(backend="openai", base_url=endpoint.url, model="tiny-vision")
    is_whole(done, 2)
    assert notices(done, "") == []
