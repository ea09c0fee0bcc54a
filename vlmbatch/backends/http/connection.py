"""Extensions of aiohttp: request bodies in pieces, and a connector that reports reused connections."""

from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from vlmbatch.backends.http.wire import Pieces

JOINED_BYTES = 64 * 1024
"""Up to this size a copy costs less than the system calls that it saves; longer bodies are not joined."""
CHUNK_BYTES = 256 * 1024
"""asyncio copies the bytes that a socket does not accept at once, so each write has at most this size."""
AT_ONCE_BYTES = 16 * 1024
MOST_INTERIM = 100
"""So many interim replies may wait at a connection; real servers send one or two."""


class Body(aiohttp.Payload):
    """A body of several pieces; only short bodies are copied."""

    def __init__(self, pieces: Pieces) -> None:
        super().__init__(pieces, content_type="application/json")
        self._size = sum(map(len, pieces))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text; aiohttp requires this method of every payload."""
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body."""
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
    """How one request used its connection: whether it was reused, and whether a reply began."""

    reused: bool = False
    reply_began: bool = False

    @property
    def stale(self) -> bool:
        """Whether the request used a pooled connection and got no byte of a reply."""
        return self.reused and not self.reply_began


CONNECTION_USE: ContextVar[ConnectionUse] = ContextVar("connection_use")


class Replies(ResponseHandler):
    """Reads the replies on one connection. A server may send interim ones (100 to 199) for ever.

    The event loop does nothing else while aiohttp reads what has come, so a connection with many is closed.
    """

    def data_received(self, data: bytes) -> None:
        """Read the next bytes of replies."""
        for start in range(0, max(len(data), 1), AT_ONCE_BYTES):
            super().data_received(data[start : start + AT_ONCE_BYTES])
            if len(self) > MOST_INTERIM:
                self.close()
                self.set_exception(aiohttp.ClientPayloadError("the server sent endless interim replies"))
                return


class Connector(aiohttp.TCPConnector):
    """Records whether each request reuses a connection; aiohttp's traces cost a fifth of a request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory: Any = partial(Replies, loop=self._loop)
        self._factory = factory
        self._seen: WeakSet[object] = WeakSet()

    async def connect(self, *request: Any, **options: Any) -> Connection:
        """A pooled or a new connection; called again if aiohttp resends a request by itself."""
        connection = await super().connect(*request, **options)
        CONNECTION_USE.get().reused = connection.protocol in self._seen
        self._seen.add(connection.protocol)
        return connection
