"""The ollama package's client, with a call of our own and what httpcore tells of it."""

import httpx
import ollama


class Journey:
    """What httpcore tells of one request on its way."""

    def __init__(self) -> None:
        self.connected = False
        self.sent = False
        self.reply_began = False

    async def hear(self, event: str, _info: object) -> None:
        # connection.connect_tcp.started, or socks.connect_tcp.started behind such a proxy
        self.connected = self.connected or event.endswith(".connect_tcp.started")
        self.sent = self.sent or event == "http11.send_request_headers.started"
        self.reply_began = self.reply_began or event == "http11.receive_response_headers.complete"

    @property
    def stale(self) -> bool:
        """Whether it went over a connection kept from earlier, and heard nothing."""
        return self.sent and not self.connected and not self.reply_began


class Client(ollama.AsyncClient):
    """The ollama package's client with one more call: a body of bytes out, the whole reply back.

    The package's own chat() encodes the image on the event loop, does not take `truncate`, and drops
    the headers of an error, so that Retry-After is lost.
    """

    async def call(self, method: str, path: str, body: bytes | None, journey: Journey) -> httpx.Response:
        reply: httpx.Response = await self._client.request(
            method, path, content=body, extensions={"trace": journey.hear}
        )
        return reply

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
