"""Downloads a file from a web server that is not trusted: only from sites that a check allows."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from vlmbatch.backends.http.connection import CONNECTION_USE, ConnectionUse, Connector
from vlmbatch.backends.http.proxies import HINT as PROXY_HINT
from vlmbatch.backends.http.proxies import proxy_of, speaks_http
from vlmbatch.backends.http.redirects import MOST_HOPS
from vlmbatch.backends.http.tls import system_context
from vlmbatch.backends.http.wire import CONNECT_TIMEOUT_S, KEEPALIVE_S, reason
from vlmbatch.errors import VlmbatchError

FetchStatus = Literal["forbidden", "unreachable", "too_large", "timeout", "bad_status"]
"""Why a download failed: a URL that is not allowed, no connection, too many bytes, no time, a bad reply."""
REDIRECTS = (301, 302, 303, 307, 308)
LONGEST_URL = 8192
INVALID = "the image's URL is not valid; check its host and port"
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]")
"""Characters with which two programs may read different hosts in a URL, or which end a line of a request."""


class FetchError(VlmbatchError):
    """An image could not be fetched from its URL; `status` says why. The message shows the host, no more."""

    def __init__(self, message: str, *, status: FetchStatus) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The server of a URL. `host` is in lower case, in the form in which it is looked up."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def site_of(url: str) -> tuple[Site, URL]:
    """The site of an http or https URL, and the URL as aiohttp reads it, so that both have the same host.

    Raises:
        FetchError: it is not such a URL, or has a user or password (status forbidden).
    """
    if re.match("https?://", url, re.IGNORECASE) is None:
        raise FetchError("the image's URL must begin with http:// or https://", status="forbidden")
    if len(url) > LONGEST_URL or _UNSAFE.search(url):
        raise FetchError(
            f"the image's URL has more than {LONGEST_URL:,} characters, or a space, a backslash or a control "
            "character; write such characters as %20 and the like",
            status="forbidden",
        )
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port
    except (ValueError, UnicodeError) as error:
        raise FetchError(INVALID, status="forbidden") from error
    if "@" in parsed.raw_authority:
        raise FetchError("the image's URL has a user or a password; remove it", status="forbidden")
    if not host or port is None:
        raise FetchError("the image's URL has no host; write for example https://HOST/", status="forbidden")
    return Site(scheme=parsed.scheme, host=host.lower(), port=port), parsed


class Downloads:
    """One aiohttp session for downloads, without cookies, logins and referrers."""

    def __init__(self, check: Callable[[Site], None], max_bytes: int, timeout_s: float) -> None:
        """`check` raises FetchError for a site that is not allowed; it is asked before each connection.

        `max_bytes` is the largest body, once it is decompressed. `timeout_s` is for a whole download.
        """
        self._check = check
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "vlmbatch"},
            connector=Connector(limit=0, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def fetch(self, url: str) -> bytes:
        """The body of the reply at this URL, after at most five redirects.

        Raises:
            FetchError: the URL or a redirect is not allowed, or no good reply came in time.
        """
        if self._session is None:
            raise RuntimeError("used outside of its async with")
        site, target = site_of(url)
        self._check(site)
        try:
            async with asyncio.timeout(self._timeout_s):
                for _ in range(MOST_HOPS + 1):
                    found = await self._hop(self._session, site, target)
                    if isinstance(found, bytes):
                        return found
                    site, target = found
        except TimeoutError as error:
            raise FetchError(
                f"{site} sent no whole image in {self._timeout_s:g} s", status="timeout"
            ) from error
        raise FetchError(f"{site} redirects more than {MOST_HOPS} times", status="bad_status")

    async def _hop(self, session: aiohttp.ClientSession, site: Site, url: URL) -> bytes | tuple[Site, URL]:
        """The body of the reply at this URL, or the allowed site and URL of its redirect."""
        proxy = proxy_of(str(url))
        if proxy is not None and not speaks_http(proxy):
            raise FetchError(f"the proxy for {site} is no HTTP proxy; {PROXY_HINT}", status="unreachable")
        CONNECTION_USE.set(ConnectionUse())
        tls = system_context() if site.scheme == "https" else True
        try:
            async with session.get(url, allow_redirects=False, proxy=proxy, ssl=tls) as reply:
                location = reply.headers.get("Location")
                if reply.status in REDIRECTS and location:
                    return self._redirected(url, location)
                if reply.status != 200:
                    raise FetchError(f"{site} replied with HTTP {reply.status}", status="bad_status")
                return await self._body(site, reply)
        except aiohttp.InvalidURL as error:
            raise FetchError(INVALID, status="forbidden") from error
        except (aiohttp.ClientError, ValueError) as error:  # ValueError: an invalid proxy or host name
            raise FetchError(f"no image from {site}: {reason(error)}", status="unreachable") from error

    def _redirected(self, url: URL, location: str) -> tuple[Site, URL]:
        try:
            joined = urljoin(str(url), location)
        except ValueError:  # for example http://[
            joined = location
        site, target = site_of(joined)
        self._check(site)
        return site, target

    async def _body(self, site: Site, reply: aiohttp.ClientResponse) -> bytes:
        too_large = FetchError(
            f"the image of {site} has more than {self._max_bytes:,} bytes", status="too_large"
        )
        if (reply.content_length or 0) > self._max_bytes:
            raise too_large
        body = bytearray()
        async for piece in reply.content.iter_any():
            body += piece
            if len(body) > self._max_bytes:
                raise too_large
        return bytes(body)
