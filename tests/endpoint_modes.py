"""The faults that an endpoint can be told to show, by name: whole replies, and misbehaving sockets.

A mode may carry an argument after a colon: `slow:0.5`, `429:7`, `context:3`, `trickle:0.01`, `down:2`.
"""

import json
from collections.abc import Awaitable, Callable

from endpoint_http import Line, Received, Reply
from endpoint_wires import UNDECODABLE, as_json, chat, error, nested

CONTEXT_WORDINGS = (
    "This model's maximum context length is 8192 tokens. However, you requested 512 output tokens and your "
    "prompt contains at least 8000 input tokens.",
    "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 8192 "
    "tokens and your request has 8000 input tokens (512 > 8192 - 8000).",
    "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
    "The prompt (total length 9000) is too long to fit into the model (context length 8192).",
    "You passed 8000 input tokens and requested 512 output tokens. However, the model's context length is "
    "only 8192 tokens.",
    "Input length (9000) exceeds model's maximum context length (8192).",
    "This model's maximum context length is 8192 tokens. However, your prompt contains at least 8193 input "
    "tokens, which exceeds this limit even without any output tokens.",
    "max_tokens=9000 cannot be greater than max_model_len=8192. Please request fewer output tokens.",
)
RUNNER_STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)
BUSY = {
    "ollama": "server busy, please try again.  maximum pending requests exceeded",
    "openai": "The engine is currently busy and cannot accept new requests. Please try again later.",
}
LOOP = "There are many cars in the picture. " * 40


def html(status: int, title: str) -> Reply:
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"
    return Reply(status=status, body=page.encode(), content_type="text/html")


def context(request: Received, argument: str) -> Reply:
    """One of the eight wordings (1 to 8) of vLLM, or Ollama's."""
    if request.wire == "openai" or argument:
        return error(request.wire, 400, CONTEXT_WORDINGS[int(argument or 6) - 1])
    told = {
        "code": 400,
        "message": "request (20010 tokens) exceeds the available context size (2048 tokens)",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 20010,
        "n_ctx": 2048,
    }
    return error("ollama", 400, json.dumps({"error": told}))


def unknown_model(request: Received, argument: str) -> Reply:
    if request.wire == "ollama":
        return error("ollama", 404, f"model '{request.model}' not found")
    return error("openai", 404, f"The model `{request.model}` does not exist.", "NotFoundError")


def unknown_route(request: Received, argument: str) -> Reply:
    if request.wire == "ollama":
        return Reply(status=404, body=b"404 page not found", content_type="text/plain")
    return as_json(404, {"detail": "Not Found"})


def error_in_200(request: Received, argument: str) -> Reply:
    if request.wire == "ollama":
        return error("ollama", 200, "an error was encountered while running the model: unexpected EOF")
    return as_json(200, {"error": {"message": "Provider returned error", "code": 502}})


def old_vllm(request: Received, argument: str) -> Reply:
    words = f"The model `{request.model}` does not exist."
    return as_json(
        404, {"object": "error", "message": words, "type": "NotFoundError", "param": None, "code": 404}
    )


def answer(text: str | None, reason: str | None, thinking: str | None = None) -> Callable[..., Reply]:
    def reply(request: Received, argument: str) -> Reply:
        return chat(request.wire, request.model, text, reason, thinking=thinking)

    return reply


def failure(status: int, words: str | dict[str, str], **headers: str) -> Callable[..., Reply]:
    def reply(request: Received, argument: str) -> Reply:
        told = words if isinstance(words, str) else words[request.wire]
        made = error(request.wire, status, told)
        return Reply(status=status, body=made.body, headers=headers)

    return reply


def fixed(reply: Reply) -> Callable[..., Reply]:
    return lambda request, argument: reply


def too_many(request: Received, argument: str) -> Reply:
    """429; the argument is its Retry-After, as it stands (seconds, a date, or nonsense)."""
    headers = {"Retry-After": argument} if argument else {}
    return Reply(status=429, body=error(request.wire, 429, "Too many requests").body, headers=headers)


REPLIES: dict[str, Callable[[Received, str], Reply]] = {
    "html200": fixed(html(200, "Sign in")),
    "html502": fixed(html(502, "502 Bad Gateway")),
    "html504": fixed(html(504, "504 Gateway Time-out")),
    "broken_json": fixed(Reply(status=200, body=b'{"model": "tiny')),
    "302": fixed(Reply(status=302, body=b"", headers={"Location": "https://login.invalid/?next=1"})),
    "400": failure(400, "temperature is not what it should be"),
    "400-image": lambda request, argument: nested(request.wire, 400, UNDECODABLE),
    "401": failure(401, {"ollama": "unauthorized", "openai": "Invalid API Key"}),
    "403-empty": fixed(Reply(status=403, body=b"", content_type="text/plain")),
    "404-model": unknown_model,
    "404-route": unknown_route,
    "408": failure(408, "request timeout"),
    "413": fixed(html(413, "413 Request Entity Too Large")),
    "422": fixed(as_json(422, {"detail": [{"loc": ["body", "x"], "msg": "field required"}]})),
    "429": too_many,
    "499": failure(499, "request canceled"),
    "500": failure(500, "internal error"),
    "empty500": fixed(Reply(status=500, body=b"", content_type="text/plain")),
    "503-busy": failure(503, BUSY),
    "503-loading": failure(503, "Loading model"),
    "runner_stopped": failure(500, RUNNER_STOPPED),
    "engine_dead": failure(
        500, "EngineCore encountered an issue. See stack trace (above) for the root cause."
    ),
    "chunk_not_found": lambda request, argument: nested(request.wire, 500, "got exception: Chunk not found"),
    "done_false": answer("!!!!!!!", None),
    "length": answer("A picture of a", "length"),
    "length_loop": answer(LOOP, "length"),
    "empty": answer("", "stop"),
    "empty_thinking": answer("", "stop", "Let me look at the picture."),
    "loop": answer(LOOP, "stop"),
    "finish_abort": answer("A picture", "abort"),
    "finish_error": answer("out of memory", "error"),
    "content_filter": answer("", "content_filter"),
    "error_in_200": error_in_200,
    "nested_json_error": lambda request, argument: nested(request.wire, 400, UNDECODABLE),
    "old_vllm_error_shape": old_vllm,
    "context": context,
}
"""Modes that are a whole reply."""


async def hang(line: Line, argument: str) -> None:
    await line.wait(None)


async def trickle(line: Line, argument: str) -> None:
    """A byte every few milliseconds, without end."""
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
    while True:
        await line.wait(float(argument or 0.05))
        await line.send(b" ")


async def rst(line: Line, argument: str) -> None:
    line.reset()


async def shortbody(line: Line, argument: str) -> None:
    """Five bytes of a thousand."""
    await line.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"a":')


async def closenoresp(line: Line, argument: str) -> None:
    """Return, and so close, without a word."""


SOCKETS: dict[str, Callable[[Line, str], Awaitable[None]]] = {
    "hang": hang,
    "trickle": trickle,
    "rst": rst,
    "shortbody": shortbody,
    "closenoresp": closenoresp,
}
"""Modes that misuse the socket; the connection is closed after each."""

MODES = frozenset({"ok", "slow", "idleclose", "down", *REPLIES, *SOCKETS})
"""All names. `slow:S` answers S seconds late, `idleclose:S` closes S seconds after its answer (what comes
meanwhile gets none), `down:S` takes the whole endpoint away, for S seconds or until `up()`."""
