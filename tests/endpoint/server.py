"""A loopback server for tests. It speaks Ollama's and OpenAI's wire on one port, and fails on demand.

    with Endpoint(script=["500", "ok"]) as endpoint:
        ...  # send requests to endpoint.url; look at endpoint.requests

It runs in its own thread, so that subprocesses and async tests can both use it. From the command line:
`cd tests && python -m endpoint --port 11434 --mode 429:7`. All modes are in endpoint/modes.py.
"""

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from endpoint import questions
from endpoint.loopback import Loopback
from endpoint.messages import Line, Picture, Received, read_request, render
from endpoint.model import count_tokens
from endpoint.modes import ALL_REPLIES, HANGS, MODES, OUTAGES, REPLIES, SOCKETS
from endpoint.service import Service
from endpoint.wires import Model

__all__ = ["Endpoint", "Model", "Picture", "Received"]

Script = Callable[[Received], str] | Sequence[str] | Mapping[str, str]
CHAT_PATHS = ("/api/chat", "/v1/chat/completions")
TINY_MODELS = {"tiny-vision": Model(vision=True), "tiny-text": Model(vision=False)}


class Endpoint(Service, Loopback):
    """The server. All settings but `slots`, `port` and `tls` are attributes that may change while it runs.

    `script` gives the mode of each question: a list of modes in order of arrival (then `ok`), modes by
    SHA-256 of the picture sent, or a function of the request. `routes` are modes for paths
    (`{"/api/show": "500"}`), and `pulls` the modes of the next /api/pull requests.
    `slots` is the number of questions processed at once, all further ones queue; `delay` is in seconds.
    `blind` hides the pictures from the model; `counts` selects the reported prompt tokens: `real` (a token
    a word, 64 a picture), `patches` (64 a picture of 224x224 pixels), `words` (pictures cost none), `text`
    (their base64 text counts), `constant` or `none`. Six settings are attributes only: `refuses`, arguments
    that get a 400 as from OpenAI, `refusal`, a function that may return a reply of its own to a question or
    canary, `media`, the folder of file:// pictures, `context`, the tokens of a request with its answer,
    `versions`, what Ollama and vLLM report, by name, and `on_hang`, a function that is called when a request
    begins to hang, and each second until it ends.

    Canaries, the questions that check whether the model sees, are kept in `canaries`: they are not in
    `requests`, no script applies to them, and the mode `canary` decides their reply.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        script: Script = (),
        routes: Mapping[str, str] | None = None,
        slots: int | None = None,
        delay: float = 0.0,
        answer: Callable[[Received], str] | None = None,
        api_key: str | None = None,
        owned_by: str = "vllm",
        props: Mapping[str, Any] | None = None,
        speaks: Iterable[str] = ("ollama", "openai"),
        blind: bool = False,
        counts: str = "real",
        canary: str = "ok",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        Loopback.__init__(self, port, tls)
        Service.__init__(
            self,
            models=TINY_MODELS if models is None else models,
            answer=answer,
            api_key=api_key,
            owned_by=owned_by,
            props=props,
            speaks=speaks,
            blind=blind,
        )
        self.script = script
        self.routes = dict(routes or {})
        self.slots = slots
        self.delay = delay
        self.pulls: list[str] = []
        self.counts = counts
        self.canary = canary
        self.on_hang: Callable[[], None] = lambda: None
        self.requests: list[Received] = []
        self.canaries: list[Received] = []
        self.released = False
        self._releases: Callable[[], object] = lambda: False
        self.open_questions = 0
        self.most_open_questions = 0
        self.abandoned = 0
        self.crashes = 0
        self._questions = 0
        self._spoilt = 0
        self._loaded_at: float | None = None

    @property
    def questions(self) -> list[Received]:
        """The chat requests with messages, in order of arrival, without canaries."""
        return [request for request in self.requests if request.chat is not None]

    def hold_until(self, holds: Callable[[], object], *, after: int = 0) -> None:
        """Answer no question from this number on, until the condition holds."""
        self.script = lambda request: "ok" if (request.chat or 0) < after else "held"
        self._releases = holds

    def _load(self) -> tuple[int, int]:
        waiting = max(0, self.open_questions - (self.slots or self.open_questions))
        return self.open_questions - waiting, waiting

    def _started(self) -> None:
        """A new server has an empty queue, and its model is not loaded yet."""
        self._working = asyncio.Semaphore(self.slots or 1_000_000)
        self._loaded_at = None

    async def _exchange(self, line: Line) -> bool:
        request = await read_request(line.reader)
        line.busy = True
        if request.path not in CHAT_PATHS or not questions.has_messages(request):
            self.requests.append(request)
            return await self._perform(line, request, self._mode_elsewhere(request))
        request = self._question(request)
        with self._counted(request):
            async with self._working:
                if line.reader.at_eof():
                    raise ConnectionResetError("the client closed the connection in the queue")
                return await self._perform(line, request, request.mode)

    @contextlib.contextmanager
    def _counted(self, request: Received) -> Iterator[None]:
        """Count a question while it is open, unless it is a canary."""
        if request.is_canary:
            yield
            return
        self.open_questions += 1
        self.most_open_questions = max(self.most_open_questions, self.open_questions)
        try:
            yield
        except ConnectionError:
            self.abandoned += 1
            raise
        finally:
            self.open_questions -= 1

    def _question(self, request: Received) -> Received:
        """The request with its number, its readable pictures and its mode."""
        canary = questions.is_canary(request)
        seen = dataclasses.replace(
            request,
            pictures=questions.pictures(request, self.media),
            chat=None if canary else self._questions,
            is_canary=canary,
        )
        self._questions += not canary
        tokens = count_tokens(seen, self.counts, self.blind)
        seen = dataclasses.replace(seen, tokens=tokens, mode=self._mode(seen))
        (self.canaries if canary else self.requests).append(seen)
        return seen

    def _mode(self, request: Received) -> str:
        if request.path in self.routes:
            return self.routes[request.path]
        if request.is_canary:
            return self.canary
        if self._spoilt:
            self._spoilt -= 1
            return "chunk_not_found"
        mode = self._scripted(request)
        name, _, count = mode.partition(":")
        if name == "chunk_not_found" and count:
            self._spoilt = int(count) - 1
        return mode

    def _mode_elsewhere(self, request: Received) -> str:
        """The mode of a request that is no question."""
        if request.path == "/api/pull" and self.pulls:
            return self.pulls.pop(0)
        return self.routes.get(request.path, "ok")

    def _scripted(self, request: Received) -> str:
        if isinstance(self.script, Mapping):
            hashes = (picture.sha256 for picture in request.pictures)
            return next((self.script[name] for name in hashes if name in self.script), "ok")
        if callable(self.script):
            return self.script(request)
        number = request.chat or 0
        return self.script[number] if number < len(self.script) else "ok"

    async def _perform(self, line: Line, request: Received, mode: str) -> bool:
        name, _, argument = mode.partition(":")
        if name not in MODES:
            raise ValueError(f"no mode {name!r}")
        if name in OUTAGES:
            await self._take_down(line, request, name, argument)
            return False
        if name in SOCKETS:
            await self._misuse(line, name, argument)
            return False
        request = await self._take_time(line, request, name, argument)
        reply = ALL_REPLIES[name](request, argument) if name in ALL_REPLIES else self._reply(request)
        if line.stalled:
            await line.wait(None)
        line.busy = False
        await line.send(render(reply, request.method))
        if name == "idleclose":
            await asyncio.sleep(float(argument or 0))
        return name != "idleclose" and request.headers.get("connection", "").lower() != "close"

    async def _misuse(self, line: Line, name: str, argument: str) -> None:
        telling = self._spawn(self._tell_of_hang()) if name in HANGS else None
        try:
            await SOCKETS[name](line, argument)
        finally:
            if telling is not None:
                telling.cancel()

    async def _tell_of_hang(self) -> None:
        while True:
            self.on_hang()
            await asyncio.sleep(1)

    async def _take_down(self, line: Line, request: Received, name: str, argument: str) -> None:
        """Take the whole endpoint down during a question."""
        if self._server is None:  # another question takes it down at this moment
            await line.wait(None)
        seconds, _, how = argument.partition(":")
        if how not in ("", "rst", "500"):
            raise ValueError(f"no way to crash {how!r}")
        if name == "sigterm_hang":
            await self._go_deaf()
        else:
            self.crashes += name == "crash_neighbours"
            dying = render(REPLIES["engine_dead"](request, ""), request.method)
            await self._go_down(dying if how == "500" else b"")
        if seconds:
            self._spawn(self._up_after(float(seconds)))
        if name == "sigterm_hang":
            await line.wait(None)

    async def _take_time(self, line: Line, request: Received, name: str, argument: str) -> Received:
        """Wait for the delay, the mode and the load of the model."""
        asked = request.chat is not None or request.is_canary
        pause = self.delay if asked else 0.0
        if name in ("slow", "503_after_slow"):
            pause += float(argument or 1)
        now = asyncio.get_running_loop().time()
        if name == "cold" and self._loaded_at is None:
            self._loaded_at = now + float(argument or 1)
        if self._loaded_at is not None and self._loaded_at > now and (asked or name == "cold"):
            pause += self._loaded_at - now
            request = dataclasses.replace(request, load_ns=int((self._loaded_at - now) * 1e9))
        if name == "reload":
            request = dataclasses.replace(request, load_ns=int(float(argument or 1) * 1e9))
        if name == "ok_stream":
            request = dataclasses.replace(request, body={**request.body, "stream": True})
        if pause:
            request = dataclasses.replace(request, busy_ns=int(pause * 1e9))
            await line.wait(pause)
        while name == "held" and not self.released:
            self.released = bool(self._releases())
            await line.wait(0.005)
        return request
