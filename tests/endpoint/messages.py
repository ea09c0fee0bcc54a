"""HTTP/1.1 written directly on asyncio streams, so that a server can also break its rules."""

import asyncio
import http.client
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole HTTP reply; a `streamed` one goes out in chunks of one line each."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    streamed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture as it arrived: its bytes, their SHA-256 and its sides in pixels."""

    data: bytes
    sha256: str
    width: int
    height: int

    def __str__(self) -> str:
        return f"sha256={self.sha256} bytes={len(self.data)} size={self.width}x{self.height}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request. `chat` numbers the questions from 0, and is None for canaries and all other requests.

    The reply reports `tokens` as the prompt's tokens (None: no report), `written` as the answer's (None: a
    token a word), `busy_ns` as the time of the generation, and `load_ns` as the time to load the model
    before it.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any
    pictures: tuple[Picture, ...] = ()
    chat: int | None = None
    is_canary: bool = False
    mode: str = "ok"
    tokens: int | None = None
    written: int | None = None
    load_ns: int = 1000
    busy_ns: int = 0

    @property
    def wire(self) -> str:
        """`ollama` or `openai`."""
        return "openai" if self.path.startswith("/v1") else "ollama"

    @property
    def model(self) -> str:
        """The requested model."""
        name = self.body.get("model", "") if isinstance(self.body, dict) else ""
        return str(name)


class Line:
    """The server's end of one connection.

    `busy` is true while a request waits for its reply, `stalled` once no reply will be sent any more.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.busy = False
        self.stalled = False

    async def wait(self, seconds: float | None) -> None:
        """Wait this long; None means for ever.

        Raises:
            ConnectionResetError: the client has closed the connection meanwhile.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return
        raise ConnectionResetError("the client left")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        if self.writer.transport.is_closing():
            return
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> Received:
    """Read one HTTP/1.1 request with its whole body, with a length or in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        raw = await read_chunks(reader)
    else:
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = None
    path, _, query = target.partition("?")
    return Received(method=method, path=path, query=query, headers=headers, body=body)


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    raw = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        raw += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return raw


def render(reply: Reply, method: str) -> bytes:
    """The reply as bytes on the wire."""
    if reply.streamed:
        lines = reply.body.splitlines(keepends=True)
        body = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines) + b"0\r\n\r\n"
        length = {"Transfer-Encoding": "chunked"}
    else:
        body, length = reply.body, {"Content-Length": str(len(reply.body))}
    headers = {"Content-Type": reply.content_type, **length, **reply.headers}
    head = f"HTTP/1.1 {reply.status} {http.client.responses.get(reply.status, 'Unknown')}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode("latin-1") + b"\r\n" + (b"" if method == "HEAD" else body)
