"""The faults that the test endpoint can imitate, by name: whole replies, and misbehaving sockets.

A mode may carry an argument after a colon: `slow:0.5`, `429:7`, `context:3`, `trickle:0.01`, `down:2`.
"""

import dataclasses
import json
from collections.abc import Awaitable, Callable

from endpoint.helper_replies import HELPER_REPLIES
from endpoint.messages import Line, Received, Reply
from endpoint.pull import PULL_REPLIES, PULL_SOCKETS
from endpoint.refusals import REFUSALS, fixed
from endpoint.streams import error_midstream, no_done
from endpoint.wires import ENGINE_DEAD, UNEXPECTED_EOF, as_json, chat, error, max_tokens

RUNNER_STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)
BUSY = {
    "ollama": "server busy, please try again.  maximum pending requests exceeded",
    "openai": "The engine is currently busy and cannot accept new requests. Please try again later.",
}
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
LOOP = "There are many cars in the picture. " * 40
TRUNCATED_PROMPT_TOKENS = 1026


def html(status: int, title: str) -> Reply:
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"
    return Reply(status=status, body=page.encode(), content_type="text/html")


def error_in_200(request: Received, argument: str) -> Reply:
    if request.wire == "ollama":
        return error("ollama", 200, UNEXPECTED_EOF)
    return as_json(200, {"error": {"message": "Provider returned error", "code": 502}})


def answer(
    text: str | None, reason: str | None, thinking: str | None = None, refusal: str | None = None
) -> Callable[[Received, str], Reply]:
    def reply(request: Received, argument: str) -> Reply:
        if reason == "length":
            request = dataclasses.replace(request, written=max_tokens(request))
        return chat(request, text, reason, thinking=thinking, refusal=refusal)

    return reply


def null_content(request: Received, argument: str) -> Reply:
    """Thoughts without content; the argument is the name of their field on OpenAI's wire."""
    reply = chat(request, None, "stop", thinking="Let me look at the picture.")
    if not argument or request.wire == "ollama":
        return reply
    payload = json.loads(reply.body)
    message = payload["choices"][0]["message"]
    message[argument] = message.pop("reasoning")
    return as_json(200, payload)


def half_prompt(request: Received, argument: str) -> Reply:
    """Ollama's reply to a prompt that does not fit: it drops half of the prompt and answers nothing."""
    return chat(dataclasses.replace(request, tokens=TRUNCATED_PROMPT_TOKENS), "", "stop")


def failure(status: int, words: str | dict[str, str], **headers: str) -> Callable[[Received, str], Reply]:
    def reply(request: Received, argument: str) -> Reply:
        told = words if isinstance(words, str) else words[request.wire]
        made = error(request.wire, status, told)
        return Reply(status=status, body=made.body, headers=headers)

    return reply


def loading(request: Received, argument: str) -> Reply:
    if request.wire == "ollama":
        return error("ollama", 503, "Loading model")
    return as_json(503, LOADING)


def too_many(header: str) -> Callable[[Received, str], Reply]:
    """429; the argument is the unchanged value of the header (seconds, a date, or nonsense)."""

    def reply(request: Received, argument: str) -> Reply:
        headers = {header: argument} if argument else {}
        return Reply(status=429, body=error(request.wire, 429, "Too many requests").body, headers=headers)

    return reply


REPLIES: dict[str, Callable[[Received, str], Reply]] = {
    **REFUSALS,
    "html200": fixed(html(200, "Sign in")),
    "html502": fixed(html(502, "502 Bad Gateway")),
    "html504": fixed(html(504, "504 Gateway Time-out")),
    "broken_json": fixed(Reply(status=200, body=b'{"model": "tiny')),
    "302": fixed(Reply(status=302, body=b"", headers={"Location": "https://login.invalid/?next=1"})),
    "400": failure(400, "the request is not what it should be"),
    "401": failure(401, {"ollama": "unauthorized", "openai": "Invalid API Key"}),
    "403-empty": fixed(Reply(status=403, body=b"", content_type="text/plain")),
    "408": failure(408, "request timeout"),
    "409": failure(409, "the request conflicts with another"),
    "413": fixed(html(413, "413 Request Entity Too Large")),
    "422": fixed(as_json(422, {"detail": [{"loc": ["body", "x"], "msg": "field required"}]})),
    "425": failure(425, "too early"),
    "429": too_many("Retry-After"),
    "429-ms": too_many("retry-after-ms"),
    "499": failure(499, "request canceled"),
    "500": failure(500, "internal error"),
    "empty500": fixed(Reply(status=500, body=b"", content_type="text/plain")),
    "503-busy": failure(503, BUSY),
    "503-empty": fixed(Reply(status=503, body=b"", content_type="text/plain")),
    "503-loading": loading,
    "503_after_slow": failure(503, BUSY),
    "runner_stopped": failure(500, RUNNER_STOPPED),
    "engine_dead": failure(500, ENGINE_DEAD),
    "done_false": answer("!!!!!!!", None),
    "bangs": answer("!" * 200, "stop"),
    "length": answer("A picture of a", "length"),
    "length_loop": answer(LOOP, "length"),
    "empty": answer("", "stop"),
    "empty_thinking": answer("", "stop", "Let me look at the picture."),
    "null_content": null_content,
    "truncated_prompt_200_empty": half_prompt,
    "loop": answer(LOOP, "stop"),
    "schema_broken_json": answer('{"animal": "cat", "legs": ', "stop"),
    "finish_abort": answer("A picture", "abort"),
    "finish_error": answer("out of memory", "error"),
    "content_filter": answer("", "content_filter"),
    "refusal": answer(None, "stop", refusal="I'm sorry, but I can't help with that."),
    "error_in_200": error_in_200,
    "ndjson_error_midstream": error_midstream,
    "ndjson_no_done": no_done,
}
"""Modes that send a whole reply to a question."""

ALL_REPLIES = {**REPLIES, **PULL_REPLIES, **HELPER_REPLIES}
"""The replies to questions, those of /api/pull, and those of any status and body."""


async def hang(line: Line, argument: str) -> None:
    await line.wait(None)


async def trickle(line: Line, argument: str) -> None:
    """Send a byte every few milliseconds, without end."""
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
    while True:
        await line.wait(float(argument or 0.05))
        await line.send(b" ")


async def rst(line: Line, argument: str) -> None:
    line.reset()


async def shortbody(line: Line, argument: str) -> None:
    """Send five bytes of a thousand."""
    await line.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"a":')


async def closenoresp(line: Line, argument: str) -> None:
    """Return without a byte, which closes the connection."""


SOCKETS: dict[str, Callable[[Line, str], Awaitable[None]]] = {
    "hang": hang,
    "trickle": trickle,
    "rst": rst,
    "shortbody": shortbody,
    "closenoresp": closenoresp,
    **PULL_SOCKETS,
}
"""Modes that misuse the socket; each one ends with a closed connection."""

HANGS = frozenset({"hang", "trickle", "pull_stall", "pull_still"})
"""The modes among them that last until the client leaves."""

OUTAGES = frozenset({"down", "crash_neighbours", "sigterm_hang"})
"""Modes that take the whole endpoint down, for the seconds of their argument or until `up()`.

`down:S` resets all connections. `crash_neighbours:S` does the same, and is counted in `crashes`;
`crash_neighbours:S:500` answers 500 to all pending requests instead. `sigterm_hang:S` lets them wait for
ever, and refuses new connections.
"""

PACED = frozenset({"slow", "503_after_slow", "cold", "reload", "idleclose", "ok_stream", "held"})
"""Modes that change how a reply is sent, not its content.

`held` answers once the endpoint's attribute `released` is set.
`slow:S` answers S seconds late, and `503_after_slow:S` sends 503 S seconds late. `cold:S` loads the model
once: all questions wait until S seconds after the first. `reload:S` only reports a load of S seconds.
`idleclose:S` closes S seconds after its answer (requests sent meanwhile get no reply). `ok_stream` answers
in pieces even if the request does not ask for a stream.
"""

MODES = frozenset({"ok", *OUTAGES, *PACED, *ALL_REPLIES, *SOCKETS})
"""All names. `chunk_not_found:K` also fails the next K - 1 questions, whatever their script says."""
