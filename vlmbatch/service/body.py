"""The body of a request: its bytes are counted while it is read, and a client that stalls is refused."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from vlmbatch.service.call import Call
from vlmbatch.service.problems import Problem

STALL_S = 20.0
"""A client may pause this long in the middle of a body."""
BODIES = 16
"""All bodies in progress together may be this many times as large as the largest body of one request."""


class BodyRoom:
    """Room in memory for the bodies of all requests in progress."""

    def __init__(self, most: int) -> None:
        """`most` is in bytes."""
        self._left = most

    def take(self, size: int) -> None:
        """Take room for so many bytes; raises a Problem if there is none."""
        if size > self._left:
            raise Problem("overloaded", "the requests in progress use all memory for bodies; try again later")
        self._left -= size

    def release(self, size: int) -> None:
        """These bytes are free again."""
        self._left += size


class Body:
    """Passes the messages of one request on to the app, as ASGI's `receive`."""

    def __init__(self, receive: Receive, call: Call, *, most: int, room: BodyRoom) -> None:
        """The body has at most `most` bytes, and arrives within the deadline of the call."""
        self._receive = receive
        self._most = most
        self._call = call
        self._room = room
        self._size = 0
        self._complete = asyncio.Event()
        self._leaving: asyncio.Future[None] | None = None
        self.is_gone = False
        """Whether the client has closed the connection."""

    def check_head(self, headers: Headers) -> None:
        """Raise a Problem if the Content-Length is too large, or if the body cannot be read."""
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most:
            raise self._too_large()
        if "upgrade" in headers and (length.strip("0") or "transfer-encoding" in headers):
            raise Problem(  # the parser of HTTP reads no body then
                "bad_request",
                "a request with a body cannot have the header Upgrade; use HTTP/1.1 without it "
                "(Java: HttpClient.Version.HTTP_1_1)",
            )

    @property
    def is_complete(self) -> bool:
        """Whether all of it has arrived."""
        return self._complete.is_set()

    async def __call__(self) -> Message:
        """The next message: a part of the body, or that the client has gone.

        Raises:
            Problem: the body is too large, or it stopped arriving.
        """
        if self.is_complete:
            await self.gone()
            return {"type": "http.disconnect"}
        left_s = self._call.left_s
        try:
            async with asyncio.timeout(min(STALL_S, left_s)):
                message = await self._receive()
        except TimeoutError as error:
            told = "the body took longer than a request may take"
            if left_s > STALL_S:
                told = f"no byte of the body has arrived for {STALL_S:g} s"
            raise Problem("slow_request", f"{told}; send the request again") from error
        if message["type"] == "http.disconnect":
            self._left()
            return message
        size = len(message.get("body", b""))
        if self._size + size > self._most:
            raise self._too_large()
        self._room.take(size)
        self._size += size
        if not message.get("more_body", False):
            self._complete.set()
        return message

    async def gone(self) -> None:
        """Return once the whole body has arrived and the client has closed the connection."""
        await self._complete.wait()
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._until_gone())
        await asyncio.shield(self._leaving)

    async def _until_gone(self) -> None:
        if not self.is_gone:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._left()

    def _left(self) -> None:
        self.is_gone = True
        self._complete.set()

    async def discard(self, seconds: float) -> None:
        """Read the rest and drop it, so that a client that still sends can read the reply."""
        left = self._most
        try:
            async with asyncio.timeout(seconds):
                while not self.is_complete and left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        self._complete.set()
        except TimeoutError:
            pass  # the connection is closed now, with the reply on its way

    def close(self) -> None:
        """The request is over: its room is free."""
        self._room.release(self._size)
        self._size = 0
        if self._leaving is not None:
            self._leaving.cancel()

    def _too_large(self) -> Problem:
        return Problem(
            "too_large", f"the body has more than {self._most:,} bytes; send a smaller image, or fewer images"
        )
