"""Ollama's /api/pull of the test endpoint: a stream of lines, whole, broken off, or without end."""

import json
from collections.abc import Callable
from typing import Any

from endpoint.messages import Line, Received, Reply
from endpoint.wires import Model, error

LAYERS = {"sha256:aaaa": 4_000_000, "sha256:bbbb": 1_000_000}
"""Digests and sizes in bytes of the layers of every model here."""
UNKNOWN = "pull model manifest: file does not exist"
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)


def layer(digest: str, completed: int | None = None) -> dict[str, Any]:
    told = {"status": f"pulling {digest[7:]}", "digest": digest, "total": LAYERS[digest]}
    return told if completed is None else {**told, "completed": completed}


def steps(*, present: bool) -> list[dict[str, Any]]:
    """Ollama's lines for a model that it downloads, or already has."""
    told: list[dict[str, Any]] = [{"status": "pulling manifest"}]
    for digest, size in LAYERS.items():
        told += [] if present else [layer(digest), layer(digest, size // 2)]
        told.append(layer(digest, size))
    last = ("verifying sha256 digest", "writing manifest", "success")
    return [*told, *({"status": status} for status in last)]


def pull(models: dict[str, Model], request: Received) -> Reply:
    """A missing model is downloaded, unless its name begins with `no-such`."""
    name = str(request.body.get("model", ""))
    if not name or " " in name:
        return error("ollama", 400, "invalid model name")
    if name.startswith("no-such"):
        return _ndjson([{"status": "pulling manifest"}, {"error": UNKNOWN}])
    present = name in models
    models.setdefault(name, Model())
    return _ndjson(steps(present=present))


def pull_error(request: Received, argument: str) -> Reply:
    """Half a layer, then an error under status 200; the argument is its text."""
    half = layer("sha256:aaaa", 2_000_000)
    return _ndjson([{"status": "pulling manifest"}, half, {"error": argument or "max retries exceeded: EOF"}])


def pull_garbage(request: Received, argument: str) -> Reply:
    return Reply(status=200, body=b"<html>\n", content_type="text/html", streamed=True)


def pull_line(request: Received, argument: str) -> Reply:
    """The argument as the whole stream."""
    return Reply(status=200, body=argument.encode(), content_type="application/x-ndjson", streamed=True)


async def pull_cut(line: Line, argument: str) -> None:
    """Report this many bytes of the first layer, and close the connection."""
    await _begin(line, int(argument or 1_000_000))


async def pull_stall(line: Line, argument: str) -> None:
    """Report half a layer, then send nothing more."""
    await _begin(line, 2_000_000)
    await line.wait(None)


async def pull_still(line: Line, argument: str) -> None:
    """Send the same line again and again: Ollama reports every 60 ms, even if no byte arrives."""
    await _begin(line, 2_000_000)
    while True:
        await line.wait(float(argument or 0.01))
        await _send(line, layer("sha256:aaaa", 2_000_000))


async def _begin(line: Line, completed: int) -> None:
    await line.send(HEAD)
    await _send(line, {"status": "pulling manifest"})
    await _send(line, layer("sha256:aaaa", completed))


async def _send(line: Line, told: dict[str, Any]) -> None:
    data = json.dumps(told).encode() + b"\n"
    await line.send(b"%x\r\n%b\r\n" % (len(data), data))


def _ndjson(told: list[dict[str, Any]]) -> Reply:
    body = "".join(json.dumps(step) + "\n" for step in told).encode()
    return Reply(status=200, body=body, content_type="application/x-ndjson", streamed=True)


PULL_REPLIES: dict[str, Callable[[Received, str], Reply]] = {
    "pull_error": pull_error,
    "pull_garbage": pull_garbage,
    "pull_line": pull_line,
}
PULL_SOCKETS = {"pull_cut": pull_cut, "pull_stall": pull_stall, "pull_still": pull_still}
