"""Images from URLs: which hosts are asked, and how much is read."""

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from certificates import make_certificates
from loop_clock import LoopClock

from vlmbatch.errors import ConfigError
from vlmbatch.service.fetch import FetchError, UrlFetcher

MOST_BYTES = 1_000_000
OK = "HTTP/1.1 200 OK\r\n"


@dataclass(slots=True)
class Web:
    """A web server on loopback: its port, and what it has heard."""

    head: str = OK
    port: int = 0
    connections: int = 0
    requests: list[str] = field(default_factory=list)
    hangs: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/a.jpg"


@asynccontextmanager
async def serving(
    body: bytes = b"picture", more: Callable[[], bytes] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Web]:
    """A server that sends its `head` and this body; then what `more` returns again and again, or the end.

    It hangs when `more` returns nothing.
    """
    web = Web()
    tasks = set[asyncio.Task[None]]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        web.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            web.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(f"{web.head}Connection: close\r\n\r\n".encode() + body)
            while more is not None:
                if piece := more():
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)  # drain waits only for a full buffer
                else:
                    await writer.drain()
                    web.hangs.set()
                    await reader.read()
                    break
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(answer(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        server.close()
        await asyncio.gather(*tasks)


def fetcher(*hosts: str) -> UrlFetcher:
    return UrlFetcher(hosts, MOST_BYTES, 60.0)


async def refused(urls: UrlFetcher, url: str) -> FetchError:
    """The error of this URL."""
    with pytest.raises(FetchError) as caught:
        await urls.fetch(url)
    return caught.value


async def test_an_image_of_an_allowed_host_is_fetched() -> None:
    """The bytes arrive, and the request tells the host nothing: no cookie, login or referrer."""
    async with serving() as web, fetcher(f"LocalHost:{web.port}") as urls:
        web.head = f"{OK}Set-Cookie: a=b\r\n"
        for url in (f"http://localhost:{web.port}/a", f"HTTP://LOCALHOST:{web.port}/a?b=c#d"):
            assert await urls.fetch(url) == b"picture"
        assert [request.split("\r\n")[0] for request in web.requests] == [
            "GET /a HTTP/1.1",
            "GET /a?b=c HTTP/1.1",
        ]
        names = {line.partition(":")[0].lower() for line in web.requests[-1].split("\r\n")[1:] if line}
        assert names == {"host", "accept", "accept-encoding", "user-agent"}
        assert "Accept-Encoding: identity\r\n" in web.requests[-1]


async def test_no_other_host_is_asked() -> None:
    """A URL of another host, or with another spelling of an allowed one, makes no connection at all."""
    async with serving() as web, fetcher(web.host, "images.example") as urls:
        port = web.port
        others = [
            *(f"http://{host}:{port}/a.jpg" for host in ("localhost", "127.1", "0x7f000001", "2130706433")),
            *(f"http://{host}:{port}/a.jpg" for host in ("[::1]", "[::ffff:127.0.0.1]", "127.0.0.1.", "0")),
            *(
                f"http://{user}@127.0.0.1:{port}/a.jpg"
                for user in ("me", "me:secret", ":secret", "images.example")
            ),
            f"http://127.0.0.1:{port}@localhost:{port}/",
            f"http://localhost:{port}\\@127.0.0.1:{port}/",
            f"http://localhost:{port}#@127.0.0.1:{port}/",
            f"http://localhost:{port}/127.0.0.1:{port}",
            f"http://127.0.0.1:{port}.example/",
            f"http://127.0.0.1:{port}\r\nX-More: 1/a.jpg",
            f"http://127.0.0.1:{port}/a.jpg HTTP/1.1\r\nX-More: 1",
            *(f"http://127.0.0.1:{port}/a{c}.jpg" for c in ("\n", "\t", "\0", " ", "\x7f", "\ud800")),
            f" http://127.0.0.1:{port}/a.jpg",
            f"http://images.example:{port}/",
            "http://images.example:443/",
            "https://images.example:80/",
            "http://127.0.0.1/a.jpg",
            "http://127.0.0.1:99999/",
            "http://[127.0.0.1/",
            "http:///a.jpg",
            f"http:127.0.0.1:{port}/a.jpg",
            f"//127.0.0.1:{port}/a.jpg",
            f"ftp://127.0.0.1:{port}/a.jpg",
            "file:///etc/passwd",
            "data:image/png;base64,AAAA",
            "",
            f"{web.url}?{'a' * 10_000}",
        ]
        for url in others:
            error = await refused(urls, url)
            assert error.status == "forbidden", url
            assert "secret" not in str(error)
        assert web.connections == 0
        assert await urls.fetch(web.url) == b"picture"


async def test_a_host_without_a_port_is_asked_at_the_usual_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is allowed at port 80 with http, also by its international name, and through a proxy."""
    async with serving() as proxy, fetcher("bücher.example") as urls:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        for host in ("bücher.example", "xn--bcher-kva.example:80", "ＢÜCHER.example"):  # noqa: RUF001
            assert await urls.fetch(f"http://{host}/") == b"picture"
        assert {request.split("\r\n")[0] for request in proxy.requests} == {
            "GET http://xn--bcher-kva.example/ HTTP/1.1"
        }
        monkeypatch.setenv("http_proxy", f"socks5://{proxy.host}")
        assert (await refused(urls, "http://bücher.example/")).status == "unreachable"


async def test_a_redirect_leads_to_allowed_hosts_only() -> None:
    """A redirect is followed to an allowed host; nothing is sent to another host or scheme."""
    async with (
        serving() as inner,
        serving() as second,
        serving(b"") as web,
        fetcher(web.host, second.host) as urls,
    ):
        for target in (
            inner.url,
            f"//{inner.host}/",
            f"http://localhost:{second.port}/",
            f"http://me:pw@{second.host}/",
            "file:///etc/passwd",
            "http://[",
            f"\\\\{inner.host}\\",
        ):
            web.head = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n"
            assert (await refused(urls, web.url)).status == "forbidden", target
        assert inner.connections == second.connections == 0
        web.head = f"HTTP/1.1 307 Moved\r\nLocation: //{second.host}/b%2Fc?d=%20#e\r\n"
        assert await urls.fetch(web.url) == b"picture"
        assert second.requests[0].startswith("GET /b%2Fc?d=%20 HTTP/1.1\r\n")


async def test_five_redirects_are_followed() -> None:
    """A redirect in a circle ends after six requests; a redirect without a target is no image."""
    async with serving(b"") as web, fetcher(web.host) as urls:
        web.head = "HTTP/1.1 301 Moved\r\nLocation: next\r\n"
        assert (await refused(urls, web.url)).status == "bad_status"
        assert [request.split()[1] for request in web.requests] == ["/a.jpg", *["/next"] * 5]
        web.head = "HTTP/1.1 301 Moved\r\n"
        assert (await refused(urls, web.url)).status == "bad_status"


async def test_a_large_image_is_not_read_to_its_end() -> None:
    """An endless body, an endless compressed body, and a body that says its size all end as too large."""
    packer = zlib.compressobj(wbits=31)

    def packed() -> bytes:
        return packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)

    for head, more in (
        (OK, lambda: bytes(1 << 16)),
        (f"{OK}Content-Encoding: gzip\r\n", packed),
        (f"{OK}Content-Length: {MOST_BYTES + 1}\r\n", lambda: b""),
    ):
        async with serving(b"", more) as web, fetcher(web.host) as urls:
            web.head = head
            error = await refused(urls, web.url)
            assert (error.status, str(error)) == (
                "too_large",
                f"the image of http://{web.host} has more than 1,000,000 bytes",
            )


async def test_an_image_of_the_largest_size_is_fetched() -> None:
    """An image of exactly the most bytes arrives whole, also compressed."""
    picture = bytes(MOST_BYTES)
    for head, body in ((OK, picture), (f"{OK}Content-Encoding: gzip\r\n", zlib.compress(picture, wbits=31))):
        async with serving(body) as web, fetcher(web.host) as urls:
            web.head = head
            assert await urls.fetch(web.url) == picture


async def test_a_slow_image_ends_at_its_deadline() -> None:
    """A body that stops after some bytes ends as a timeout."""
    async with serving(b"pic", lambda: b"") as web, fetcher(web.host) as urls:
        web.head = f"{OK}Content-Length: 7\r\n"
        clock = LoopClock()
        fetching = asyncio.create_task(refused(urls, web.url))
        await web.hangs.wait()
        clock.skip(60)
        assert (await fetching).status == "timeout"


async def test_a_failed_download_says_why(tmp_path: Path) -> None:
    """No server, no certificate to trust, a broken reply and a status other than 200 have a status each."""
    async with serving(b"pic") as web, fetcher(web.host) as urls:
        for head, status in (
            ("HTTP/1.1 404 Not Found\r\n", "bad_status"),
            ("HTTP/1.1 206 Partial\r\n", "bad_status"),
            (f"{OK}Content-Length: 7\r\n", "unreachable"),
            (f"{OK}Content-Encoding: gzip\r\n", "unreachable"),
            ("SSH-2.0\r\n", "unreachable"),
        ):
            web.head = head
            assert (await refused(urls, f"{web.url}?token=secret")).status == status, head
    async with fetcher(web.host) as urls:
        error = await refused(urls, f"{web.url}?token=secret")
        assert str(error) == f"no image from http://{web.host}: Connection refused"
    tls = make_certificates(tmp_path).server()
    async with serving(tls=tls) as web, fetcher(web.host) as urls:
        error = await refused(urls, f"https://{web.host}/a.jpg")
        assert (error.status, web.requests) == ("unreachable", [])
        assert "certificate" in str(error)


@pytest.mark.parametrize(
    "host", ["", "http://a.example", "*.example", "a.example/", "a b", "me@a.example", "a:x", "::1", "a%2eb"]
)
def test_a_wrong_host_is_named(host: str) -> None:
    """An entry that is neither HOST nor HOST:PORT is an error with an example."""
    with pytest.raises(ConfigError, match="write HOST or HOST:PORT"):
        UrlFetcher([host], MOST_BYTES, 1.0)
