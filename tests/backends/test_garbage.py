"""Replies with any content: a backend raises no exception of a library."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, babbling, question, reply
from command import measured
from replying import OPENAI, Raw, replying
from selection import mostly_long

from vlmbatch.errors import BackendError, TransientError
from vlmbatch.protocols import Catalogue

Photos = Callable[..., Path]

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


@pytest.mark.parametrize("name", mostly_long(["ollama", "openai"], ["openai"]))
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


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_a_reply_is_bounded_by_the_question(name: str) -> None:
    """The limit of a reply grows with the tokens and logprobs of a question; a longer one is not read."""
    message = {"content": "a"}
    told = {"message": message, "done": True, "choices": [{"message": message, "finish_reason": "stop"}]}
    raw = reply({**told, "more": " " * 5_500_000})
    async with babbling(raw, raw, raw) as url, KINDS[name].open(url) as backend:
        with pytest.raises(
            TransientError, match=r"more than 5 MB, the limit for --max-tokens 512$"
        ) as caught:
            await backend.complete(question())
        assert caught.value.kind == "bad_response"
        for more in ({"max_tokens": 1000}, {"logprobs": 2}):
            assert (await backend.complete(question(**more))).text == "a"


@pytest.mark.parametrize("name", mostly_long(["ollama", "openai"], ["openai"]))
async def test_the_users_own_parameters_may_ask_for_more(name: str) -> None:
    """If the user's own parameters may ask for any size, a reply of 60 MB is read, and one of 68 is not."""
    own = {"option": ("num_predict=null",)} if name == "ollama" else {"extra_body": '{"n": 2}'}
    for size, is_read in ((60_000_000, True), (68_000_000, False)):
        message = {"content": "a"}
        told = {"message": message, "done": True, "choices": [{"message": message, "finish_reason": "stop"}]}
        raw = reply(json.dumps({**told, "more": " " * size}).encode())
        async with babbling(raw) as url, KINDS[name].open(url, **own) as backend:
            if is_read:
                assert (await backend.complete(question())).text == "a"
            else:
                with pytest.raises(TransientError, match=r"more than 64 MB, the limit for every reply$"):
                    await backend.complete(question())


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_a_hint_is_bounded(name: str) -> None:
    """Only 4 MB are read of a list of models of 5 MB, and the list then counts as missing."""
    raw = reply({"models": [], "data": [], "more": " " * 5_000_000})
    async with babbling(raw) as url, KINDS[name].open(url) as backend:
        assert isinstance(backend, Catalogue)
        with pytest.raises(TransientError, match="more than 4 MB, the limit for a reply that is not an"):
            await backend.models()


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_a_list_of_models_is_bounded(name: str) -> None:
    """Only the first 10,000 models of an endless list are read."""
    listed = [
        {"id": f"m{n}", "name": f"m{n}", "capabilities": [], "context_length": 5} for n in range(10_500)
    ]
    for each in listed:
        each["details"] = {"context_length": 5}
    raw = reply({"models": listed, "data": listed})
    async with babbling(raw, raw) as url, KINDS[name].open(url) as backend:
        assert isinstance(backend, Catalogue)
        assert len(await backend.models()) == 10_000


LONG = {
    "a text": (b'"a": "' + b"a" * 58_000_000 + b'"', "more than 5 MB, the limit for --max-tokens 512"),
    "objects": (b'"a": [' + b"[]," * 1_500_000 + b"0]", "24 answered"),
}
"""For each kind of long reply: the JSON that makes it long, and a text that the run then prints."""


@pytest.mark.parametrize("kind", mostly_long(LONG, ["a text"]))
def test_long_replies_cost_little_memory(photos: Photos, kind: str) -> None:
    """24 long replies at once, of 58 MB or with 1.5 million objects, take less than 600 MB in a run."""
    photos(24)
    more, told = LONG[kind]
    long = b'{"choices": [{"message": {"content": "A cat."}, "finish_reason": "stop"}], ' + more + b"}"
    with replying(lambda path, text: Raw(body=long) if path == OPENAI else None) as server:
        done, peak = measured(
            *("run", "photos", "-b", "vllm", "--base-url", server.url, "-m", "tiny", "-c", "24"),
            *("--no-canary", "--retries", "0", "-o", "o.jsonl"),
        )
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert peak < 600_000_000, f"{peak:,}"
