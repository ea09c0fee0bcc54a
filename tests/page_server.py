"""A stand-in for the service: serves its page, and answers the requests of the page as a test says."""

import json
import sys
import threading
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import vlmbatch

FILES = Path(vlmbatch.__file__).parent / "service" / "page"
KINDS = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What the service received: the fields of the form, the name and bytes of its file, and the header."""

    fields: dict[str, str]
    name: str | None
    data: bytes
    authorization: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the service answers to an upload."""

    status: int = 200
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Service:
    """A stand-in for the service: gives these replies one after the other, then the usual answer."""

    url: str = ""
    key: str | None = None
    replies: list[Reply] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)


def answer(text: str, **more: object) -> Reply:
    """An answer with this text."""
    image = {"width": 4032, "height": 3024, "sent_width": 1024, "sent_height": 768}
    body = {"result": text, "id": "1", "model": "tiny-vision", "duration_s": 2.31, "image": image}
    return Reply(body={**body, "usage": {"output_tokens": 48}, "warnings": [], "error": None, **more})


def refusal(status: int, kind: str, message: str, **headers: str) -> Reply:
    """A failure of this status."""
    error = {"kind": kind, "message": message, "retryable": True}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, body={"error": error, "request_id": "r-17"}, headers=named)


class StandIn(ThreadingHTTPServer):
    """The server of a service."""

    daemon_threads = True

    def __init__(self, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.service = service

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, except that the page has cancelled its request."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of the page."""

    server: StandIn

    def do_GET(self) -> None:
        name = self.path.removeprefix("/") or "index.html"
        if name in KINDS:
            self.reply(200, KINDS[name], (FILES / name).read_bytes(), {})
        elif self.is_allowed():
            self.send(Reply(body={"data": [{"id": "tiny-vision"}, {"id": "large-vision"}]}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.is_allowed():
            service = self.server.service
            service.uploads.append(upload(self.headers, body))
            reply = service.replies.pop(0) if service.replies else answer("A red square.")
            service.may_answer.wait()
            self.send(reply)

    def is_allowed(self) -> bool:
        key = self.server.service.key
        if key is None or self.headers["Authorization"] == f"Bearer {key}":
            return True
        self.send(refusal(401, "auth", "The key is missing or wrong. Send another key."))
        return False

    def send(self, reply: Reply) -> None:
        self.reply(reply.status, "application/json", json.dumps(reply.body).encode(), reply.headers)

    def reply(self, status: int, kind: str, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        length = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in {**length, "Content-Security-Policy": POLICY, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the output free of requests."""


def upload(headers: Message, body: bytes) -> Upload:
    """The upload in a body of the type multipart/form-data."""
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    _, *parts = message_from_bytes(head + body, policy=policy.HTTP).walk()
    named = {part["Content-Disposition"].params["name"]: part for part in parts}
    file = named.pop("file")
    return Upload(
        fields={name: part.get_content() for name, part in named.items()},
        name=file.get_filename(),
        data=file.get_content(),
        authorization=headers["Authorization"],
    )
