"""Relays between a run and a real server: one turns streaming on, the other acts like a restarted server."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK = 1 << 16
PASSED_ON = ("content-type", "authorization")


class ChatRelay:
    """Passes requests on. It keeps the replies to questions, and with `streams` asks for each as a stream."""

    def __init__(self, target: str, *, streams: bool) -> None:
        self.replies: list[tuple[str, bytes]] = []
        """The content type and the body of each reply to a question."""
        parts = urlsplit(target)
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                is_question = self.path.endswith(("/chat", "/chat/completions"))
                if is_question and streams:
                    body = json.dumps(json.loads(body) | {"stream": True}).encode()
                status, kind, data = _fetched(
                    urllib.request.Request(
                        f"{parts.scheme}://{parts.netloc}{self.path}",
                        data=body or None,
                        method=self.command,
                        headers={k: v for k, v in self.headers.items() if k.lower() in PASSED_ON},
                    )
                )
                if is_question:
                    relay.replies.append((kind, data))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = pass_on  # the names that http.server calls

            def log_message(self, *args: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{parts.path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _fetched(request: urllib.request.Request) -> tuple[int, str, bytes]:
    """Status, content type and body of the reply."""
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return reply.status, reply.headers.get_content_type(), reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get_content_type(), error.read()


class RestartRelay:
    """Passes bytes on. After go_away() it keeps the open connections silent and accepts no new one."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._ways: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """The address of the relay."""
        return f"http://127.0.0.1:{self._port}{self._target.path}"

    async def __aenter__(self) -> Self:
        await self.come_back()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_away()
        for way in self._ways:
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    def go_away(self) -> None:
        """Refuse new connections; the open ones stay open, and nothing passes through them any more."""
        assert self._server is not None, "it listens"
        self._server.close()
        self._flows.clear()

    async def come_back(self) -> None:
        """Accept new connections and pass them on; the old ones stay silent."""
        self._flows = asyncio.Event()
        self._flows.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flows = self._flows
        to_server = await asyncio.open_connection(self._target.hostname, self._target.port or 80)
        ways = (_pump(reader, to_server[1], flows), _pump(to_server[0], writer, flows))
        self._ways |= {asyncio.create_task(way) for way in ways}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> None:
    """Pass bytes on until the end, as long as they flow."""
    try:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await flows.wait()
                writer.write(data)
                await writer.drain()
        await flows.wait()
    finally:
        writer.close()
