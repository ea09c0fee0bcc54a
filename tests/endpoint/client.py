"""A plain HTTP client: builds questions for both wires, and exchanges them with the test endpoint."""

import base64
import contextlib
import http.client
import io
import json
import socket
from typing import Any

import pytest
from PIL import Image

from endpoint import Endpoint

CHAT_PATHS = ("/api/chat", "/v1/chat/completions")
both_wires = pytest.mark.parametrize("path", CHAT_PATHS)


def jpeg(colour: str | tuple[int, int, int] = "red") -> bytes:
    """A JPEG of 64x48 pixels in one colour."""
    out = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, "JPEG")
    return out.getvalue()


def question(
    path: str, picture: bytes | None = None, model: str = "tiny-vision", text: str = "What is it?"
) -> dict[str, Any]:
    """A question about one picture, in the form of this wire; b"" means no picture."""
    data = base64.b64encode(jpeg() if picture is None else picture).decode()
    message: dict[str, Any] = {"role": "user", "content": text}
    if path == "/api/chat":
        message["images"] = [data] if data else []
    elif data:
        url = {"url": f"data:image/jpeg;base64,{data}"}
        message["content"] = [{"type": "image_url", "image_url": url}, {"type": "text", "text": text}]
    return {"model": model, "messages": [message], "stream": False}


def ask(
    endpoint: Endpoint, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    """Status, text and headers of one exchange; POST if it has a body."""
    line = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=20)
    with contextlib.closing(line):
        sent = None if body is None else json.dumps(body)
        given = {"Content-Type": "application/json", **(headers or {})}
        line.request("GET" if sent is None else "POST", path, sent, given)
        reply = line.getresponse()
        return reply.status, reply.read().decode(), reply.headers


def answer_in(path: str, text: str) -> tuple[str | None, str | None]:
    """The answer and its finish reason."""
    payload = json.loads(text)
    if path == "/api/chat":
        return payload["message"]["content"], payload.get("done_reason")
    choice = payload["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def raw(
    endpoint: Endpoint, path: str, picture: bytes | None = None, text: str = "What is it?"
) -> socket.socket:
    """Send a question over a plain socket; returns the socket, still unread."""
    body = json.dumps(question(path, picture, text=text)).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    line = socket.create_connection(("127.0.0.1", endpoint.port), timeout=20)
    line.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return line


def read_all(line: socket.socket) -> bytes:
    """All bytes until the server closes the connection."""
    return b"".join(iter(lambda: line.recv(65536), b""))


def says_nothing(line: socket.socket) -> bool:
    """Whether the connection is open and has delivered no byte."""
    line.settimeout(0.01)
    try:
        line.recv(1)
    except TimeoutError:
        return True
    finally:
        line.settimeout(20)
    return False


def refuses(endpoint: Endpoint) -> bool:
    """Whether the endpoint's port is closed."""
    try:
        socket.create_connection(("127.0.0.1", endpoint.port), timeout=20).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the server closes the port at this moment
        return False
    return False
