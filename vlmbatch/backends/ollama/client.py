"""What the ollama package's client sends through: the transport that all requests of a run share."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable

import httpx

Send = Callable[[str, str, bytes], AsyncGenerator[bytes, None]]
"""Sends a request of this method, path and body, and yields the lines of a good reply."""


class Lines(httpx.AsyncBaseTransport):
    """The `transport=` of the package's client, so that TLS, proxies, headers and bounds are those of a run.

    What httpx itself would send as headers is left out: the transport below has its own.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it as soon as the reply is read; only good replies get so far."""
        body = await request.aread()
        return httpx.Response(200, stream=_Body(self._send(request.method, request.url.path, body)))


class _Body(httpx.AsyncByteStream):
    """The body of a reply; a line that is empty would be an error to the package."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        self._lines = lines

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for line in self._lines:
            if line.strip():
                yield line + b"\n"

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._lines.aclose()
