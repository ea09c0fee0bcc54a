"""A loopback server for tests that speaks Ollama's and OpenAI's wire on one port, and fails on demand.

    with Endpoint(script=["500", "ok"]) as endpoint:
        ...  # ask endpoint.url; look at endpoint.requests

It runs in its own thread, so that subprocesses and async tests can use it alike. By hand:
`python tests/endpoint.py --port 11434 --mode 429:7`.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import endpoint_wires as wires
from endpoint_http import Line, Picture, Received, Reply, read_request, render
from endpoint_modes import MODES, REPLIES, SOCKETS
from endpoint_wires import Model, Refusal

__all__ = ["Endpoint", "Model", "Picture", "Received"]

Script = Callable[[Received], str] | Sequence[str] | Mapping[str, str]
CHAT_PATHS = ("/api/chat", "/v1/chat/completions")
TINY_MODELS = {"tiny-vision": Model(vision=True), "tiny-text": Model(vision=False)}


class Endpoint:
    """The server. All settings but `slots` and `port` are attributes that may be changed while it runs.

    `script` says how each question fares: modes in the order they come (then `ok`), modes by SHA-256 of
    the picture sent, or a function of the request. `routes` are modes for paths (`{"/api/show": "500"}`).
    `slots` is how many questions are worked on at once, the others queue; `delay` is in seconds.
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
        port: int = 0,
    ) -> None:
        self.models = dict(TINY_MODELS if models is None else models)
        self.script = script
        self.routes = dict(routes or {})
        self.slots = slots
        self.delay = delay
        self.answer = answer or wires.describe
        self.api_key = api_key
        self.owned_by = owned_by
        self.props = props
        self.speaks = frozenset(speaks)
        self.port = port
        self.requests: list[Received] = []
        self.open_questions = 0
        self.most_open_questions = 0
        self.abandoned = 0
        self._questions = 0
        self._faults: list[Exception] = []
        self._server: asyncio.Server | None = None
        self._held: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its address, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def questions(self) -> list[Received]:
        """The chat requests that held messages, in the order they came."""
        return [request for request in self.requests if request.chat is not None]

    def __enter__(self) -> Self:
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(ready)), name="endpoint", daemon=True
        )
        self._thread.start()
        ready.result(timeout=30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), "the endpoint's thread hangs"
        if self._faults and error is None:
            raise self._faults[0]

    def until(self, holds: Callable[[], bool]) -> None:
        """Block until a condition holds that what the server does brings about."""
        for _ in range(10_000):
            if holds():
                return
            time.sleep(0.002)
        raise AssertionError("it did not come to pass in 20 seconds")

    def down(self) -> None:
        """Refuse connections from now on, and reset those that are open. Blocks until done."""
        self._from_outside(self._go_down())

    def up(self) -> None:
        """Listen again on the same port. Blocks until done."""
        self._from_outside(self._go_up())

    def _from_outside(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _main(self, ready: concurrent.futures.Future[None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._working = asyncio.Semaphore(self.slots or 1_000_000)
        try:
            await self._go_up()
        except OSError as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        await self._stop.wait()
        await self._go_down()
        if self._held is not None:
            self._held.close()
        for _ in range(5):  # connections that are just being taken, and transports that are just closing
            await asyncio.sleep(0.001)

    async def _go_up(self) -> None:
        if self._server is not None:
            return
        if self._held is not None:
            self._held.close()
            self._held = None
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _go_down(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            # asyncio leaves a connection open for ever if the server closes while it is being taken
            for listener in server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            for _ in range(3):
                await asyncio.sleep(0)
            server.close()
            # a bound socket that does not listen refuses, and keeps others from taking the port
            self._held = socket.socket()
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._held.bind(("127.0.0.1", self.port))
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _down_for(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._go_up()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # the loop had taken this connection when the server went down
            Line(reader, writer).reset()
            return
        line = Line(reader, writer)
        # a task that is cancelled before its first step never comes to its own clean-up
        self._spawn(self._converse(line)).add_done_callback(lambda _: line.reset())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _converse(self, line: Line) -> None:
        """Serve one connection until either side has enough."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(line):
                    pass
        except asyncio.CancelledError:
            line.reset()
            raise
        except Exception as fault:  # noqa: BLE001  # a wrong script or mode; raised again in the test's thread
            self._faults.append(fault)
        finally:
            line.writer.close()

    async def _exchange(self, line: Line) -> bool:
        """One request and its reply; tells whether the connection stays open."""
        request = await read_request(line.reader)
        if request.path not in CHAT_PATHS or not wires.has_messages(request):
            self.requests.append(request)
            mode = self.routes.get(request.path, "ok")
            return await self._perform(line, request, mode)
        request = self._question(request)
        self.open_questions += 1
        self.most_open_questions = max(self.most_open_questions, self.open_questions)
        try:
            async with self._working:
                if line.reader.at_eof():
                    raise ConnectionResetError("the client left while it queued")
                return await self._perform(line, request, request.mode)
        except ConnectionError:
            self.abandoned += 1
            raise
        finally:
            self.open_questions -= 1

    def _question(self, request: Received) -> Received:
        """The request with its number, its pictures as far as they can be read, and its mode."""
        pictures = []
        with contextlib.suppress(Refusal):
            for text in wires.encoded_pictures(request.wire, request.body):
                pictures.append(wires.picture(request.wire, text))  # keeps those before a bad one
        request = dataclasses.replace(request, pictures=tuple(pictures), chat=self._questions)
        self._questions += 1
        request = dataclasses.replace(request, mode=self._mode(request))
        self.requests.append(request)
        return request

    def _mode(self, request: Received) -> str:
        if request.path in self.routes:
            return self.routes[request.path]
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
        if name == "down":
            line.reset()
            await self._go_down()
            if argument:
                self._spawn(self._down_for(float(argument)))
            return False
        if name in SOCKETS:
            await SOCKETS[name](line, argument)
            return False
        pause = self.delay if request.chat is not None else 0.0
        pause += float(argument or 1) if name == "slow" else 0.0
        if pause:
            await line.wait(pause)
        reply = REPLIES[name](request, argument) if name in REPLIES else self._reply(request)
        await line.send(render(reply, request.method))
        if name == "idleclose":
            await asyncio.sleep(float(argument or 0))
        return name != "idleclose" and request.headers.get("connection", "").lower() != "close"

    def _reply(self, request: Received) -> Reply:
        guarded = self.api_key is not None and request.path.startswith(("/v1", "/api"))
        if guarded and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return wires.as_json(401, {"error": "Unauthorized"})
        try:
            reply = self._route(request)
        except Refusal as refusal:
            return refusal.reply
        return REPLIES["404-route"](request, "") if reply is None else reply

    def _route(self, request: Received) -> Reply | None:
        ollama, openai = "ollama" in self.speaks, "openai" in self.speaks
        match request.method, request.path:
            case (("GET" | "HEAD"), "/") if ollama:
                return Reply(status=200, body=b"Ollama is running", content_type="text/plain")
            case "GET", "/api/version" if ollama:
                return wires.as_json(200, {"version": "0.33.0"})
            case "GET", ("/api/tags" | "/api/ps") if ollama:
                return wires.tags(self.models)
            case "POST", "/api/show" if ollama:
                return wires.show(self.models, request)
            case "POST", "/api/chat" if ollama:
                return self._chat(request)
            case "GET", "/health" if openai:
                return Reply(status=200, body=b"")
            case "GET", "/v1/models" if openai:
                return wires.model_list(self.models, self.owned_by)
            case "POST", "/v1/chat/completions" if openai:
                return self._chat(request)
            case "GET", "/props" if self.props is not None:
                return wires.as_json(200, dict(self.props))
            case _:
                return None

    def _chat(self, request: Received) -> Reply:
        wires.check(request, self.models, self.owned_by)
        if request.chat is None:
            return wires.no_messages(request)
        if len(request.pictures) < len(texts := wires.encoded_pictures(request.wire, request.body)):
            wires.picture(request.wire, texts[len(request.pictures)])
        model = wires.find(self.models, request.model) or next(iter(self.models.values()))
        thinks = model.thinking and request.body.get("think") is not False
        text = self.answer(request)
        if request.body.get("stream", request.wire == "ollama"):
            return wires.stream(request, text)
        return wires.chat(request.wire, request.model, text, thinking="Let me look." if thinks else None)


def main() -> None:
    """Run it by hand until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", default="ok", help="one of: " + " ".join(sorted(MODES)))
    parser.add_argument("--slots", type=int)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--api-key")
    given = parser.parse_args()
    with Endpoint(
        script=lambda request: given.mode,
        port=given.port,
        slots=given.slots,
        delay=given.delay,
        api_key=given.api_key,
    ) as endpoint:
        print(endpoint.url, flush=True)  # noqa: T201  # run by hand, this is how a person learns the port
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
