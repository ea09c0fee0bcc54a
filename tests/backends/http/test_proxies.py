"""Proxies on the way to an endpoint: the errors that they cause."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint
from running import ran

Photos = Callable[..., Path]


@pytest.fixture
def proxy() -> Iterator[Callable[[str], int]]:
    """A function that starts a proxy with one answer for all requests, and returns its port."""
    open_ones: list[socket.socket] = []

    def answer(listening: socket.socket, status: str) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:  # closed: the test is over
                return
            with client:
                client.recv(65_536)
                client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    def start(status: str) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        open_ones.append(listening)
        threading.Thread(target=answer, args=(listening, status), daemon=True).start()
        return int(listening.getsockname()[1])

    yield start
    for each in open_ones:
        each.shutdown(socket.SHUT_RDWR)
        each.close()


def asked(scheme: str, **variables: str) -> tuple[int, str]:
    """The exit code and the error of a run whose endpoint is behind these proxies."""
    url = f"{scheme}://far.invalid/v1"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        done = asyncio.run(ran(backend="openai", base_url=url, model="m", give_up_after=0))
    assert done.error is not None
    return done.error.exit_code, str(done.error)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_requires_a_login_is_named(
    photos: Photos, proxy: Callable[[str], int], scheme: str
) -> None:
    """A 407 ends the run at once, since no image can succeed; the error hides the proxy's password."""
    photos(1)
    place = f"http://me:s3cret@127.0.0.1:{proxy('407 Proxy Authentication Required')}"
    code, told = asked(scheme, HTTP_PROXY=place, HTTPS_PROXY=place)
    assert code == 2
    assert "proxy" in told
    assert "HTTP_PROXY" in told
    assert "s3cret" not in told
    assert "--api-key" not in told


def test_a_502_of_a_proxy_is_an_outage(photos: Photos, proxy: Callable[[str], int]) -> None:
    """A proxy's 502 means that the endpoint is down, not that the set-up is wrong."""
    photos(1)
    code, told = asked("https", HTTPS_PROXY=f"http://127.0.0.1:{proxy('502 Bad Gateway')}")
    assert code == 4
    assert "HTTP 502" in told


def test_a_proxy_of_another_endpoint_changes_nothing(photos: Photos, endpoint: Endpoint) -> None:
    """An Ollama on this machine answers, even if the proxy of a second endpoint is unusable."""
    photos(1)
    elsewhere = "https://far.invalid/v1"
    proxy = "socks5://127.0.0.1:1"
    done = run("run", "photos", OLLAMA_HOST=endpoint.url, OPENAI_BASE_URL=elsewhere, ALL_PROXY=proxy)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("place", "code"),
    [("socks5://127.0.0.1:1", 2), ("http://127.0.0.1:1", 4), ("http://proxy:3128x", 2), ("foo://x", 2)],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_unusable_proxy_is_named(photos: Photos, place: str, code: int, scheme: str) -> None:
    """A proxy that is not HTTP, unreachable or not a URL is named with the variable that sets it."""
    photos(1)
    ended, told = asked(scheme, ALL_PROXY=place)
    assert ended == code
    assert place in told
    assert "ALL_PROXY" in told
