"""Connections of clients that do not keep to what a browser or curl does."""

import gc
import json
import socket

import pytest
from endpoint import Endpoint
from serving import Served, in_base64, picture

from vlmbatch.service import server


def posted(path: str, value: object) -> bytes:
    """A request with this JSON body, as its bytes."""
    content = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def received(connection: socket.socket) -> bytes:
    """All bytes until the service closes the connection."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def connected(served: Served) -> socket.socket:
    """A connection to the service."""
    return socket.create_connection(("127.0.0.1", served.port), 240)


ASKED = posted("/analyze", {"image_base64": in_base64(picture())})
NEXT = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def test_a_request_before_the_reply_to_another_is_dropped(endpoint: Endpoint) -> None:
    """The first request gets its reply, and the connection ends: the client sends the other one again."""
    with Served(endpoint) as served, connected(served) as connection:
        connection.sendall(ASKED + NEXT + posted("/analyze", {}))
        reply = received(connection)
        assert reply.count(b"HTTP/1.1") == 1
        assert b"connection: close" in reply
        assert b'"status":"ok"' in reply


def test_a_client_that_leaves_after_two_requests_frees_its_place(endpoint: Endpoint) -> None:
    """The end of the connection is seen while the first request is in work, although another one came."""
    endpoint.script = lambda request: "hang"
    with Served(endpoint) as served:
        with connected(served) as connection:
            endpoint.on_hang = lambda: connection.shutdown(socket.SHUT_RDWR)
            connection.sendall(ASKED + NEXT)
            served.logged("client_gone")
        assert served.metrics()["vlm_requests_in_flight"] == 1


def test_headers_after_the_body_are_not_kept(endpoint: Endpoint) -> None:
    """A client cannot fill the memory with the headers that may follow a chunked body."""
    head = b"POST /analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    with Served(endpoint) as served, connected(served) as connection:
        connection.sendall(head + b"a:\r\n" * 20_000 + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 422"
        protocols = [each for each in gc.get_objects() if isinstance(each, server.Protocol)]
        assert [len(each.headers) for each in protocols if each.headers] == [2]


def test_a_client_that_does_not_read_is_disconnected(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch ends if its client leaves the lines unread, so that it does not hold its place for ever."""
    monkeypatch.setattr(server, "UNREAD_S", 0.1)
    answer = " ".join(map(str, range(400_000)))
    images = [in_base64(picture(number)) for number in range(4)]
    endpoint.answer = lambda request: answer
    with Served(endpoint) as served, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        connection.sendall(posted("/analyze/batch", {"images": images}))
        served.logged("client_gone")


def test_an_upgrade_that_the_service_lacks_is_ignored(endpoint: Endpoint) -> None:
    """A request for a WebSocket gets the reply of its route, and the log names no package to install."""
    upgrade = (
        b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    with Served(endpoint) as served, connected(served) as connection:
        connection.sendall(upgrade)
        assert connection.recv(12) == b"HTTP/1.1 200"
        served.logged("/v1/models")
        assert len(served.log) == 1


def test_an_upgrade_with_a_body_is_refused(endpoint: Endpoint) -> None:
    """Java's client asks for HTTP/2 by default. The body would be lost, so the reply says what to do."""
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    with Served(endpoint) as served, connected(served) as connection:
        connection.sendall(ASKED.replace(b"Content-Length", wish + b"Content-Length", 1))
        reply = b""
        while b"HttpClient.Version.HTTP_1_1" not in reply:
            part = connection.recv(65_536)
            assert part, reply
            reply += part
    assert reply.startswith(b"HTTP/1.1 400 ")
