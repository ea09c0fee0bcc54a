"""The ollama package's client, over the transport that all requests of a run share."""

import httpx
import ollama

from vlmbatch.backends.http.transport import Reply, Transport
from vlmbatch.backends.http.wire import in_brief
from vlmbatch.errors import ConfigError


class Client(ollama.AsyncClient):
    """The ollama package's client with one more call, which returns the whole reply.

    What the package makes of a reply has neither its headers nor all of an error. Questions with a picture
    do not come this way: its chat() would encode the picture on the event loop, does not take `truncate`,
    and httpx takes four times the CPU of the transport below it, or more the more connections there are.
    """

    def __init__(self, transport: Transport) -> None:
        """Raises ConfigError for a URL that httpx does not take."""
        over = _Over(transport)
        try:
            super().__init__(transport.url, transport=over, trust_env=False, follow_redirects=False)
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigError(
                f"{transport.place} cannot be asked: {in_brief(error)}; check --base-url or OLLAMA_HOST"
            ) from error

    async def call(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """Send a request; see Transport.exchange."""
        reply = await self._client.request(method, path, content=body)
        whole: Reply = reply.extensions["reply"]
        return whole


class _Over(httpx.AsyncBaseTransport):
    """What httpx sends through: our transport, which adds its own headers and maps errors."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it."""
        content = await request.aread()
        body = (content,) if content else ()
        reply = await self._transport.exchange(request.method, str(request.url), body)
        # without its headers, over some of which httpx raises errors of its own
        return httpx.Response(reply.status, content=reply.body, extensions={"reply": reply})
