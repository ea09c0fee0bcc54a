"""What aiohttp is given to send with: bodies in pieces, and connections that tell whether they are old."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

from vlmbatch.backends.http.wire import Pieces

JOINED_BYTES = 64 * 1024
"""Up to here a copy costs less than the system calls that it saves; longer bodies are not joined."""
CHUNK_BYTES = 256 * 1024
"""asyncio copies what a socket does not take at once, so no more than this is given to it at a time."""


class Body(aiohttp.Payload):
    """A body of several pieces, none of which is copied but for short ones."""

    def __init__(self, pieces: Pieces) -> None:
        super().__init__(pieces, content_type="application/json")
        self._size = sum(map(len, pieces))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text; aiohttp wants every payload to know that."""
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send it."""
        if self._size is not None and self._size <= JOINED_BYTES:
            await writer.write(b"".join(self._value))
            return
        pieces: Pieces = self._value
        for piece in pieces:
            whole = memoryview(piece)
            for start in range(0, len(whole), CHUNK_BYTES):
                await writer.write(whole[start : start + CHUNK_BYTES])


@dataclass(slots=True)
class ConnectionUse:
    """What happened to one request on its way: whether over a connection that others had used before."""

    reused: bool = False
    reply_began: bool = False

    @property
    def stale(self) -> bool:
        """Whether it went over a connection kept from earlier, and heard nothing."""
        return self.reused and not self.reply_began


CONNECTION_USE: ContextVar[ConnectionUse] = ContextVar("connection_use")


class Connector(aiohttp.TCPConnector):
    """Tells each request whether its connection is a kept one; aiohttp's traces cost a fifth of a request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seen: WeakSet[object] = WeakSet()

    async def connect(self, *request: Any, **options: Any) -> Connection:
        """A kept connection or a new one; asked again where aiohttp sends a request again by itself."""
        connection = await super().connect(*request, **options)
        CONNECTION_USE.get().reused = connection.protocol in self._seen
        self._seen.add(connection.protocol)
        return connection
