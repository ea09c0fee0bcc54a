"""Replies with any content: a backend raises no exception of a library."""

import gzip
import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from backend_contract import KINDS, babbling, question, reply

from vlmbatch.errors import BackendError, TransientError

GARBAGE: dict[str, bytes] = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "header without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
    "broken gzip": reply(b"not gzip", "Content-Encoding: gzip"),
    "broken chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    "codec that decodes no text": reply(b"7b", "Content-Type: application/json; charset=hex"),
    "bytes that are no text": reply(b'{"models": "\xff\xfe"'),
    "redirect to nowhere": reply(b"", "Location: http://[::1", status="302 Found"),
    "JSON too deep": reply(b"[" * 200_000),
    "no content": reply(b"", status="204 No Content"),
    "a JSON list": reply([1]),
    "null": reply(None),
}
ODD: dict[str, dict[str, Any]] = {
    "texts for objects": {"models": "x", "data": "x", "message": "x", "choices": "x"},
    "numbers for lists": {"models": 5, "data": 5, "choices": 5, "message": 5, "capabilities": 5},
    "texts in lists": {"models": ["x"], "data": ["x"], "choices": ["x"], "message": ["x"]},
    "no names": {"models": [{"size": 1}], "data": [{"object": "model"}], "choices": [{}], "message": {}},
    "odd models": {
        "models": [{"name": "tiny-vision", "capabilities": "vision", "digest": 5}],
        "data": [{"id": "tiny-vision", "owned_by": "llamacpp", "architecture": 5, "aliases": 5}],
        "modalities": [1],
        "total_slots": "four",
        "model_info": [1],
    },
    "odd answers": {
        "model": 5,
        "message": {"content": 5, "thinking": [1]},
        "done": True,
        "done_reason": 5,
        "choices": [{"message": {"content": 5, "refusal": {"a": 1}, "reasoning": [1]}, "finish_reason": 5}],
    },
    "odd counts": {
        "message": {"content": "a"},
        "done": True,
        "prompt_eval_count": "many",
        "eval_count": -1,
        "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}],
        "usage": [1],
    },
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_garbage_is_a_backend_error(name: str, raw: bytes) -> None:
    """For any garbage in a reply, the error is a BackendError and never a library's exception."""
    async with babbling(raw) as url, KINDS[name].open(url, timeout=1.0) as backend:
        for work in (backend.preflight(), backend.complete(question())):
            with pytest.raises(BackendError):
                await work


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_a_reply_that_unpacks_without_end_is_not_read(name: str) -> None:
    """A reply of 400 kB that decompresses to 400 MB is refused without more memory than the limit."""
    raw = reply(gzip.compress(b" " * 400_000_000, 1), "Content-Encoding: gzip")
    async with babbling(raw) as url, KINDS[name].open(url) as backend:
        tracemalloc.start()
        try:
            with pytest.raises(TransientError, match="more than 5 MB, the limit for --max-tokens 512"):
                await backend.complete(question())
            assert tracemalloc.get_traced_memory()[1] < 30_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_a_byte_order_mark_is_no_garbage(name: str) -> None:
    """JSON after a byte order mark is read like any other."""
    answer = {
        "message": {"content": "a"},
        "done": True,
        "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}],
    }
    raw = reply(json.dumps(answer).encode("utf-8-sig"))
    async with babbling(raw) as url, KINDS[name].open(url) as backend:
        assert (await backend.complete(question())).text == "a"


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_odd_json_is_no_crash(name: str, odd: dict[str, Any]) -> None:
    """JSON of any shape is either read or a BackendError."""
    async with babbling(reply(odd)) as url, KINDS[name].open(url) as backend:
        for work in (backend.preflight(), backend.complete(question())):
            with suppress(BackendError):
                await work


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_odd_counts_are_zero(name: str) -> None:
    """An answer with invalid token counts is accepted with 0 tokens."""
    async with babbling(reply(ODD["odd counts"])) as url, KINDS[name].open(url) as backend:
        done = await backend.complete(question())
    assert (done.text, done.model, done.usage.input_tokens, done.usage.output_tokens) == (
        "a",
        "tiny-vision",
        0,
        0,
    )
