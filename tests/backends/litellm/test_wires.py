"""LiteLLM with providers that have another API: picture, prompt and key arrive, answer and cost come back."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from backend_contract import picture

from vlmbatch.backends.registry import open_backend
from vlmbatch.config import RunConfig
from vlmbatch.records import Request

KEY = "key-of-a-provider"
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "A cat."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 100, "output_tokens": 5},
}
GEMINI = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "A cat."}]}, "finishReason": "STOP", "index": 0}
    ],
    "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 5, "totalTokenCount": 105},
    "modelVersion": "gemini-2.5-flash",
}


@dataclass
class Heard:
    """The requests that a provider received: paths, headers in lower case, and bodies."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@contextmanager
def provider(reply: object) -> Iterator[Heard]:
    """A provider that sends the same reply to every request."""
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            heard.asked.append((self.path, headers, body))
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        heard.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("model", "reply"),
    [("anthropic/claude-sonnet-4-5", ANTHROPIC), ("gemini/gemini-2.5-flash", GEMINI)],
    ids=["anthropic", "gemini"],
)
async def test_a_request_with_a_picture(model: str, reply: object) -> None:
    """The provider receives picture, prompt, system message and key once, and its answer has a price."""
    shown = picture((9, 8, 7))
    with provider(reply) as heard:
        config = RunConfig.of("x", backend="litellm", model=model, base_url=heard.url, api_key=KEY)
        async with open_backend(config, {}) as backend:
            await backend.preflight()
            done = await backend.complete(
                Request(images=(shown,), prompt="What is this?", system="Be brief.")
            )
    ((path, headers, body),) = heard.asked
    sent = json.dumps(body)
    assert shown.data.decode() in sent
    assert "What is this?" in sent
    assert "Be brief." in sent
    assert KEY in path or KEY in headers.values() or f"Bearer {KEY}" in headers.values()
    assert (done.text, done.finish_reason) == ("A cat.", "stop")
    assert (done.usage.input_tokens, done.usage.output_tokens) == (100, 5)
    assert (done.cost or 0) > 0
