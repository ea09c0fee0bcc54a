"""A server whose replies a test gives byte by byte; other requests get the usual replies of both wires."""

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

OPENAI, OLLAMA = "/v1/chat/completions", "/api/chat"
WIRES = {"vllm": OPENAI, "ollama": OLLAMA}
"""The path of a question by the name of a backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A reply; `headers` are in addition to its type and length."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request."""

    method: str
    path: str
    body: Any
    headers: dict[str, str]


@dataclass(slots=True)
class Replying:
    """The running server: its URL, and the requests so far."""

    url: str
    asked: list[Asked] = field(default_factory=list)

    def questions(self, path: str) -> list[Asked]:
        """The requests at this path that are neither a canary nor a warm-up."""
        return [
            a
            for a in self.asked
            if a.path == path and a.body["messages"] and "colour" not in json.dumps(a.body)
        ]


Reply = Callable[[str, str], Raw | None]
"""A function of the path and of the answer of the model; None means the usual reply."""


def as_json(value: object, status: int = 200, **headers: str) -> Raw:
    """A reply of JSON."""
    pairs = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    return Raw(body=json.dumps(value).encode(), status=status, headers=pairs)


def chat(path: str, text: str | None, reason: object = "stop", **more: Any) -> dict[str, Any]:
    """The object of an answer in the format of this path."""
    if path == OLLAMA:
        message = {"role": "assistant", "content": text or ""}
        counts = {"prompt_eval_count": 220, "eval_count": 4}
        return {"model": "tiny", "message": message, "done": True, "done_reason": reason, **counts, **more}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    usage = {"prompt_tokens": 220, "completion_tokens": 4}
    return {"model": "tiny", "choices": [choice], "usage": usage, **more}


def _usual(path: str, text: str) -> Raw:
    if path in (OPENAI, OLLAMA):
        return as_json(chat(path, text))
    known = {
        "/v1/models": {"data": [{"id": "tiny", "owned_by": "me"}]},
        "/health": {},
        "/api/version": {"version": "0.33.0"},
        "/api/ps": {"models": []},
        "/api/tags": {"models": [{"name": "tiny:latest", "details": {}}]},
        "/api/show": {"capabilities": ["vision"]},
    }
    return as_json(known[path]) if path in known else as_json({"detail": "Not Found"}, 404)


@contextmanager
def replying(reply: Reply, tls: ssl.SSLContext | None = None) -> Iterator[Replying]:
    """Run the server. `reply` gets each path, and `orange` for a canary, else `A grey cat.`"""
    heard = Replying("")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _any(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            heard.asked.append(
                Asked(method=self.command, path=self.path, body=json.loads(sent or "null"), headers=headers)
            )
            text = "orange" if "What colour" in sent else "A grey cat."
            path = self.path.partition("?")[0]
            raw = reply(path, text) or _usual(path, text)
            self.send_response(raw.status)
            pairs = (("Content-Type", raw.kind), ("Content-Length", str(len(raw.body))), *raw.headers)
            for name, value in pairs:
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # a client may not read a long reply to its end
                self.wfile.write(raw.body)

        do_GET = do_POST = _any

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    heard.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
