"""Streamed answers, as NDJSON (Ollama) or server-sent events (OpenAI), whole or broken off."""

import json
import re
from typing import Any

from endpoint.messages import Received, Reply
from endpoint.wires import ENGINE_DEAD, UNEXPECTED_EOF, error, ollama_chat, usage

BROKEN_OFF = "A picture of"


def stream(request: Received, text: str) -> Reply:
    """A whole answer."""
    if request.wire == "ollama":
        last = ollama_chat(request, text, "stop")
        return _ndjson([*_lines(request, text), {**last, "message": {"role": "assistant", "content": ""}}])
    chunks = [*_chunks(request, text), _chunk(request, {}, "stop")]
    if (request.body.get("stream_options") or {}).get("include_usage"):
        counts = usage(request, text)
        chunks += [{**_chunk(request, {}, None), "choices": [], "usage": counts}] if counts else []
    return _events(chunks, end="data: [DONE]\n\n")


def error_midstream(request: Received, argument: str) -> Reply:
    """Three good pieces and an error, under status 200."""
    if request.wire == "ollama":
        return _ndjson([*_lines(request, BROKEN_OFF), {"error": UNEXPECTED_EOF}])
    told = json.loads(error("openai", 500, ENGINE_DEAD).body)
    return _events([*_chunks(request, BROKEN_OFF), told], end="data: [DONE]\n\n")


def no_done(request: Received, argument: str) -> Reply:
    """Three good pieces; then the stream ends without its end mark."""
    if request.wire == "ollama":
        return _ndjson(_lines(request, BROKEN_OFF))
    return _events(_chunks(request, BROKEN_OFF))


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def _lines(request: Received, text: str) -> list[dict[str, Any]]:
    return [ollama_chat(request, piece, None) for piece in _pieces(text)]


def _chunks(request: Received, text: str) -> list[dict[str, Any]]:
    first = _chunk(request, {"role": "assistant", "content": ""}, None)
    return [first, *(_chunk(request, {"content": piece}, None) for piece in _pieces(text))]


def _chunk(request: Received, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": request.model}
    return {**head, "choices": [choice]}


def _ndjson(lines: list[dict[str, Any]]) -> Reply:
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return Reply(status=200, body=body, content_type="application/x-ndjson", streamed=True)


def _events(chunks: list[dict[str, Any]], end: str = "") -> Reply:
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end
    return Reply(
        status=200, body=body.encode(), content_type="text/event-stream; charset=utf-8", streamed=True
    )
