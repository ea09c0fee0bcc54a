"""Sends requests to one endpoint over one connection pool.

Only this module, connection.py and download.py use aiohttp.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import aiohttp

from vlmbatch.backends.http.auth import Credentials
from vlmbatch.backends.http.connection import CONNECTION_USE, Body, ConnectionUse, Connector
from vlmbatch.backends.http.deadlines import Deadlines, single_deadline
from vlmbatch.backends.http.listening import ListenProbe
from vlmbatch.backends.http.proxies import HINT as PROXY_HINT
from vlmbatch.backends.http.proxies import proxy_note, proxy_of, speaks_http
from vlmbatch.backends.http.redirects import MOST_HOPS, target_of
from vlmbatch.backends.http.reply_limit import OF_HINTS, ReplyLimit
from vlmbatch.backends.http.tls import system_context, tls_context
from vlmbatch.backends.http.wire import (
    CANNOT_DECODE,
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
    Pieces,
    brief,
    cannot_decode,
    connection_lost,
    no_answer,
    no_connection,
    no_secure_connection,
    reason,
    reply_object,
    reply_value,
    with_query,
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

_T = TypeVar("_T")
PLAIN = RequestOptions()
"""No options beyond the defaults of every request."""
MOST_LINE_BYTES = 1024**2
PIECE_BYTES = 16 * 1024
"""The lines of this many bytes are handled without a break."""
LONG_BYTES = 64 * 1024
"""A longer reply may take more than a moment to read: JSON objects of three bytes take longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete reply of any status."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Transport:
    """One aiohttp session, whose connection pool serves all requests to one endpoint."""

    def __init__(
        self, url: str, api_key: str | None, *, timeout_s: float, hint: str, wire: RequestOptions = PLAIN
    ) -> None:
        """`hint` ends the error if the endpoint is unreachable; `timeout_s` is per request.

        Raises:
            ConfigError: the key contains characters that a header cannot carry, or a file of
                `wire` is unusable.
        """
        # one Authorization header: aiohttp refuses a key together with a login
        self._credentials = Credentials.of(url, api_key, wire.headers)
        self._tls = tls_context(wire)
        self._unchecked = wire.insecure
        self._may_want_certificate = wire.client_cert is None
        self.url = self._credentials.url
        self.place = redact(url)
        """The endpoint's URL without secrets, for messages."""
        self._timeout_s = timeout_s
        self._hint = hint
        self._proxy = proxy_of(self.url)
        self._listen_probe = ListenProbe(self.url, self._tls)
        self._deadlines = Deadlines()
        self._session: aiohttp.ClientSession | None = None
        self._reading = asyncio.Lock()

    @property
    def has_proxy(self) -> bool:
        """Whether the requests go through a proxy of the environment."""
        return self._proxy is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user about the connection: a proxy, an unchecked certificate."""
        unchecked = self._unchecked and self.url.startswith("https:")
        insecure = (f"the certificate of {self.place} is not checked (--insecure)",) if unchecked else ()
        return (*proxy_note(self.url), *insecure)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=[("Content-Type", "application/json"), *self._credentials.headers],
            # no limit of connections: the run's own limiter sets the number of requests
            connector=Connector(limit=0, keepalive_timeout=KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def masked(self, text: str) -> str:
        """The server's text with all secrets masked."""
        return self._credentials.masked(text)

    def without_keys(self, text: str) -> str:
        """The text of vlmbatch with its keys and passwords masked."""
        return self._credentials.without_keys(text)

    async def fetch_json(
        self,
        method: str,
        url: str,
        body: Pieces = (),
        deadline_s: float | None = None,
        most: ReplyLimit = OF_HINTS,
    ) -> dict[str, Any]:
        """Send a request and return the JSON object of its reply; see `exchange` for the parameters.

        Raises:
            BackendError: the reply has no JSON object, or reports an error; classified.
        """
        reply = await self.exchange(method, url, body, deadline_s, most)
        return await self._read(reply, partial(self.parse, reply))

    def parse(self, reply: Reply) -> dict[str, Any]:
        """The JSON object of this reply.

        Raises:
            BackendError: the reply has no JSON object, or reports an error; classified.
        """
        return reply_object(reply.status, reply.body, reply.headers, self._credentials)

    async def value(self, reply: Reply, *, lists: bool) -> object:
        """The JSON object of a reply to a helper request, or with `lists` its JSON list.

        Raises:
            BackendError: the reply has neither, or reports an error; classified.
        """
        read = partial(reply_value, reply.status, reply.body, reply.headers, self._credentials, lists=lists)
        return await self._read(reply, read)

    async def _read(self, reply: Reply, read: Callable[[], _T]) -> _T:
        """What `read` makes of this reply.

        A long one is read in a thread, so that the event loop goes on. It waits for the one before it, since
        JSON may take 25 times its size in memory.
        """
        if len(reply.body) <= LONG_BYTES:
            return read()
        async with self._reading:
            return await asyncio.to_thread(read)

    async def exchange(
        self,
        method: str,
        url: str,
        body: Pieces = (),
        deadline_s: float | None = None,
        most: ReplyLimit = OF_HINTS,
    ) -> Reply:
        """Send a request with a body of these pieces, and return its reply of any status.

        A request with `deadline_s` goes to the model and may queue at the server (see Deadlines). A reply of
        more than `most` bytes is not read to its end.

        Raises:
            BackendError: no complete reply came; classified.
        """
        # only requests to the model queue; the server answers requests about itself at once
        limit = self._deadlines.within(deadline_s) if deadline_s else single_deadline(self._timeout_s)
        try:
            async with self._send(method, url, body, limit) as reply:
                return await _reply(reply, self.place, most)
        except TimeoutError as error:
            raise no_answer(self.place, deadline_s, self._timeout_s) from error

    async def listens(self) -> bool:
        """Whether the server accepts a connection; also true if that is unknown. No request is sent."""
        return self._proxy is not None or await self._listen_probe.listens()

    async def lines(
        self,
        method: str,
        url: str,
        body: Pieces,
        refused: Callable[[Reply], BackendError],
        *,
        silence_s: float,
    ) -> AsyncGenerator[bytes, None]:
        """Send a request whose reply is a stream of lines, and yield each line of a 200 as it arrives.

        Raises:
            BackendError: the error that `refused` returns for any other status, the connection was lost, or
                nothing came for `silence_s` seconds; classified.
        """
        limit = asyncio.timeout(silence_s)
        clock = asyncio.get_running_loop().time
        try:
            async with self._send(method, url, body, limit) as reply:
                if reply.status != 200:
                    raise refused(await _reply(reply, self.place, OF_HINTS))
                rest = b""
                async for piece in reply.content.iter_chunked(PIECE_BYTES):
                    await asyncio.sleep(0)  # a fast server would keep the event loop from all other work
                    limit.reschedule(clock() + silence_s)
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        yield line
                    if len(rest) > MOST_LINE_BYTES:
                        raise TransientError(f"{self.place} sent an endless line", kind="bad_response")
                yield rest
        except TimeoutError as error:
            raise TransientError(f"{self.place} sent nothing for {silence_s:g} s", kind="timeout") from error

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: str,
        body: Pieces,
        limit: AbstractAsyncContextManager[object],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; its reply can be read inside the ``with``. `limit` bounds both.

        Raises TimeoutError and the errors of `exchange`.
        """
        if self._session is None:
            raise RuntimeError("used outside of its async with")
        if self._proxy is not None and not speaks_http(self._proxy):
            raise FatalBackendError(
                f"the proxy {redact(self._proxy)} cannot be used: only HTTP proxies are supported; "
                f"{PROXY_HINT}, or name the endpoint in NO_PROXY",
                kind="bad_config",
            )
        use = ConnectionUse()
        CONNECTION_USE.set(use)
        try:
            async with (
                limit,
                await self._followed(
                    self._session, method, with_query(url, self._credentials.query), body
                ) as reply,
            ):
                use.reply_began = True
                self._may_want_certificate = False
                yield reply
        except (aiohttp.ClientError, UnicodeError) as error:
            raise self._credentials.without_secrets(self._lost_connection(error, use)) from error
        except (ValueError, AssertionError) as error:  # aiohttp raises these for an invalid proxy
            raise FatalBackendError(
                f"no request can be sent to {self.place}: {brief(error)}; {PROXY_HINT}",
                kind="bad_config",
            ) from error

    async def _followed(
        self, session: aiohttp.ClientSession, method: str, url: str, body: Pieces
    ) -> aiohttp.ClientResponse:
        """Send a request, and again to the targets of redirects that may be followed (redirects.py)."""
        hops = 0
        while True:
            data = Body(body) if body else None
            reply = await session.request(
                method, url, data=data, allow_redirects=False, proxy=self._proxy, ssl=self._context(url)
            )
            target = target_of(reply.status, reply.headers.get("Location"), url)
            if target is None or hops == MOST_HOPS:
                return reply
            reply.release()
            url, hops = target, hops + 1

    def _context(self, url: str) -> ssl.SSLContext | bool:
        """The SSL context of a request; True if it needs none. That of aiohttp may trust no certificate."""
        if self._tls is None and "https:" in (url[:6].lower(), (self._proxy or "")[:6].lower()):
            self._tls = system_context()
        return self._tls or True

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
        if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):  # UnicodeError: an impossible host name
            return FatalBackendError(f"{self.place} is not a valid URL; check --base-url", kind="wrong_url")
        if CANNOT_DECODE in str(error):
            return cannot_decode(self.place, error)
        # a reply that is not HTTP is a ClientResponseError: the server has received the request
        no_reply = use.stale and isinstance(error, aiohttp.ClientConnectionError)
        bare = self._may_want_certificate and self.url.startswith("https:")
        return connection_lost(self.place, error, stale=no_reply, bare=bare)

    def _proxy_error(self, error: BaseException, proxy: str) -> BackendError | None:
        """The error if the proxy caused it; None otherwise."""
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return UnreachableError(f"no connection to the proxy {proxy}: {reason(error)}; {PROXY_HINT}")
        if isinstance(error, aiohttp.ClientHttpProxyError):
            answer = f"HTTP {error.status} {error.message}"
            message = f"the proxy {proxy} opens no connection to {self.place}: {answer}"
            if error.status < 500:
                return FatalBackendError(f"{message}; {PROXY_HINT}, and user and password there", kind="auth")
            return UnavailableError(message)
        if isinstance(error, aiohttp.InvalidURL):
            message = f"{self.place} or the proxy {proxy} is not a valid URL"
            return FatalBackendError(f"{message}; check --base-url; {PROXY_HINT}", kind="wrong_url")
        return None


async def _reply(reply: aiohttp.ClientResponse, place: str, most: ReplyLimit) -> Reply:
    """The complete reply with its body decompressed."""
    pieces, size = list[bytes](), 0
    async for piece in reply.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > most.bytes:
            raise TransientError(f"{place} replied with more than {most}", kind="bad_response")
    return Reply(status=reply.status, body=b"".join(pieces), headers=reply.headers)
