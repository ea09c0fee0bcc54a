"""Lets the client of the ollama package send its requests through the transport of the run."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable

import httpx

Send = Callable[[str, str, bytes], AsyncGenerator[bytes, None]]
"""Sends a request of this method, path and body, and yields the lines of a good reply."""


class Lines(httpx.AsyncBaseTransport):
    """The `transport=` of the package's client: TLS, proxies, headers and limits are those of the run.

    The headers of httpx are dropped, since the run's transport sets its own.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return a response that sends the request when it is read; only good replies are passed on."""
        body = await request.aread()
        return httpx.Response(200, stream=_Body(self._send(request.method, request.url.path, body)))


class _Body(httpx.AsyncByteStream):
    """The body of a reply without its empty lines, which the package would treat as errors."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        self._lines = lines

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for line in self._lines:
            if line.strip():
                yield line + b"\n"

    async def aclose(self) -> None:
        """Release the connection."""
        await self._lines.aclose()
