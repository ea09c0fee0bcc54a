"""Sends requests to one endpoint over one pool of connections; it and sending.py alone know aiohttp."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from vlmbatch.backends.http.auth import Credentials
from vlmbatch.backends.http.connection import CONNECTION_USE, Body, ConnectionUse, Connector
from vlmbatch.backends.http.deadlines import Deadlines
from vlmbatch.backends.http.proxies import HINT as PROXY_HINT
from vlmbatch.backends.http.proxies import proxy_note, proxy_of, speaks_http
from vlmbatch.backends.http.tls import tls_context
from vlmbatch.backends.http.wire import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
    Pieces,
    brief,
    connection_lost,
    no_answer,
    no_connection,
    no_secure_connection,
    reason,
    reply_object,
)
from vlmbatch.config.request import RequestOptions
from vlmbatch.config.spec import redact
from vlmbatch.errors import (
    BackendError,
    FatalBackendError,
    TransientError,
    UnavailableError,
    UnreachableError,
)

PLAIN = RequestOptions()
"""Nothing but what every request has."""
MOST_REPLY_BYTES = 64 * 1024**2
"""Of a reply, unpacked; the longest answers have some hundred kilobytes."""
MOST_LINE_BYTES = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Whatever was replied, whole."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Transport:
    """One session of aiohttp, which keeps connections for all requests of a run."""

    def __init__(
        self, url: str, api_key: str | None, *, timeout_s: float, hint: str, wire: RequestOptions = PLAIN
    ) -> None:
        """`hint` ends the error where nobody listens; `timeout_s` is per request.

        Raises:
            ConfigError: the key holds what no header can carry, or a file of `wire` cannot be used.
        """
        self._credentials = Credentials.of(
            url, api_key, wire.headers
        )  # aiohttp refuses a key and a login at once
        self._tls = tls_context(wire)
        self._unchecked = wire.insecure
        self._may_want_certificate = wire.client_cert is None
        self.url = self._credentials.url
        self.place = redact(url)
        """Where requests go, in errors."""
        self._timeout_s = timeout_s
        self._hint = hint
        self._proxy = proxy_of(self.url)
        self._deadlines = Deadlines()
        self._session: aiohttp.ClientSession | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of the way there."""
        unchecked = self._unchecked and self.url.startswith("https:")
        told = (f"the certificate of {self.place} is not checked (--insecure)",) if unchecked else ()
        return (*proxy_note(self.url), *told)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=[("Content-Type", "application/json"), *self._credentials.headers],
            # as many connections as requests, which the run's own limiter sets
            connector=Connector(limit=0, keepalive_timeout=KEEPALIVE_S, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def masked(self, text: str) -> str:
        """The text without what may stand in no error."""
        return self._credentials.masked(text)

    async def fetch_json(
        self, method: str, url: str, body: Pieces = (), deadline_s: float | None = None
    ) -> dict[str, Any]:
        """The JSON object that is replied; see `exchange` for the rest.

        Raises:
            BackendError: there was none, or it tells of an error; classified.
        """
        return self.parse(await self.exchange(method, url, body, deadline_s))

    def parse(self, reply: Reply) -> dict[str, Any]:
        """The JSON object of this reply.

        Raises:
            BackendError: there is none, or it tells of an error; classified.
        """
        return reply_object(reply.status, reply.body, reply.headers, self._credentials)

    async def exchange(
        self, method: str, url: str, body: Pieces = (), deadline_s: float | None = None
    ) -> Reply:
        """Send a request, whose body is made of these pieces, and return whatever is replied.

        With `deadline_s` it is a question, which may queue behind others at the server (see Deadlines).

        Raises:
            BackendError: there was no whole reply; classified.
        """
        # only questions queue; what is asked about the server itself is answered at once
        limit = self._deadlines.within(deadline_s) if deadline_s else asyncio.timeout(self._timeout_s)
        try:
            async with self._send(method, url, body, limit) as reply:
                return await _reply(reply, self.place)
        except TimeoutError as error:
            raise no_answer(self.place, deadline_s, self._timeout_s) from error

    async def lines(
        self,
        method: str,
        url: str,
        body: Pieces,
        refused: Callable[[Reply], BackendError],
        *,
        silence_s: float,
    ) -> AsyncGenerator[bytes, None]:
        """Send a request whose reply comes line by line, and yield each line of a 200 as it comes.

        Raises:
            BackendError: what `refused` makes of a reply that is no 200, the connection broke off, or nothing
                came for `silence_s` seconds; classified.
        """
        limit = asyncio.timeout(silence_s)
        clock = asyncio.get_running_loop().time
        try:
            async with self._send(method, url, body, limit) as reply:
                if reply.status != 200:
                    raise refused(await _reply(reply, self.place))
                rest = b""
                async for piece in reply.content.iter_any():
                    limit.reschedule(clock() + silence_s)
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        yield line
                    if len(rest) > MOST_LINE_BYTES:
                        raise TransientError(f"{self.place} sent a line without end", kind="bad_response")
                yield rest
        except TimeoutError as error:
            raise TransientError(f"{self.place} said nothing for {silence_s:g} s", kind="timeout") from error

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: str,
        body: Pieces,
        limit: AbstractAsyncContextManager[object],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; its reply can be read inside the ``with``, all within `limit`.

        Raises TimeoutError beside what `exchange` raises.
        """
        if self._session is None:
            raise RuntimeError("used outside of its async with")
        if self._proxy is not None and not speaks_http(self._proxy):
            raise FatalBackendError(
                f"the proxy {redact(self._proxy)} cannot be used: only proxies that speak http can; "
                f"{PROXY_HINT}, or name the endpoint in NO_PROXY",
                kind="bad_config",
            )
        use = ConnectionUse()
        CONNECTION_USE.set(use)
        try:
            async with (
                limit,
                self._session.request(
                    method,
                    url + self._credentials.query,
                    data=Body(body) if body else None,
                    allow_redirects=False,
                    proxy=self._proxy,
                ) as reply,
            ):
                use.reply_began = True
                self._may_want_certificate = False
                yield reply
        except (aiohttp.ClientError, UnicodeError) as error:
            raise self._credentials.without_secrets(self._lost_connection(error, use)) from error
        except (ValueError, AssertionError) as error:  # how aiohttp refuses a proxy that makes no sense
            raise FatalBackendError(
                f"{self.place} cannot be asked: {brief(error)}; {PROXY_HINT}",
                kind="bad_config",
            ) from error

    def _lost_connection(
        self, error: aiohttp.ClientError | UnicodeError, use: "ConnectionUse"
    ) -> BackendError:
        if (
            self._proxy is not None
            and (proxy_error := self._proxy_error(error, redact(self._proxy))) is not None
        ):
            return proxy_error
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
            return no_secure_connection(self.place, error)
        if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            return no_connection(self.place, error, self._hint)
        if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):  # UnicodeError: a host name no DNS can have
            return FatalBackendError(
                f"{self.place} is no URL that can be asked; check --base-url", kind="wrong_url"
            )
        # a reply that is no HTTP is a ClientResponseError: somebody was there
        heard_nothing = use.stale and isinstance(error, aiohttp.ClientConnectionError)
        bare = self._may_want_certificate and self.url.startswith("https:")
        return connection_lost(self.place, error, stale=heard_nothing, bare=bare)

    def _proxy_error(self, error: BaseException, proxy: str) -> BackendError | None:
        """What the proxy is to blame for; None for all else."""
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return UnreachableError(f"no connection to the proxy {proxy}: {reason(error)}; {PROXY_HINT}")
        if isinstance(error, aiohttp.ClientHttpProxyError):
            answer = f"HTTP {error.status} {error.message}"
            said = f"the proxy {proxy} lets nothing through to {self.place}: {answer}"
            if error.status < 500:
                return FatalBackendError(f"{said}; {PROXY_HINT}, and user and password there", kind="auth")
            return UnavailableError(said)
        if isinstance(error, aiohttp.InvalidURL):
            told = f"{self.place} cannot be asked through the proxy {proxy}, as one of them is no URL"
            return FatalBackendError(f"{told}; check --base-url; {PROXY_HINT}", kind="wrong_url")
        return None


async def _reply(reply: aiohttp.ClientResponse, place: str) -> Reply:
    """The whole reply, its body unpacked."""
    pieces, size = list[bytes](), 0
    async for piece in reply.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MOST_REPLY_BYTES:
            raise TransientError(
                f"{place} replied with more than {MOST_REPLY_BYTES // 1024**2} MB", kind="bad_response"
            )
    return Reply(status=reply.status, body=b"".join(pieces), headers=reply.headers)
