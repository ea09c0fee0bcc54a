"""Puts an answer together that came as a stream, although none was requested.

Streams are server-sent events (OpenAI's API) or JSON lines (Ollama's API). JSON with an event after it
(`data: [DONE]`) is read, too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmbatch.backends.values import mapping, mappings
from vlmbatch.errors import TransientError
from vlmbatch.finish_reasons import UNKNOWN, reason_in, word_of
from vlmbatch.strict_json import LENIENT

DONE = "[DONE]"
"""The data of OpenAI's last event."""
_KEEP_ALIVES = frozenset(("ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"))
"""Names of events that only keep the connection open."""
MOST_BROKEN = 20
"""After this many unreadable objects no more are read: each attempt may search the whole text for the end."""
MOST_PIECES = 50_000
"""After this many objects no more are read; a stream has one for each token."""
_LINE = re.compile(r"([^\r\n]*)(?:\r\n|\n|\r|\Z)")


@dataclass(slots=True)
class Pieces:
    """The JSON objects of a stream in their order.

    `ended` says that it had OpenAI's last event, `whole` that each event was readable.
    """

    objects: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False
    whole: bool = True
    _is_over: bool = False

    def keep(self, value: dict[str, Any]) -> None:
        """Add an object."""
        self.objects.append(value)
        self._is_over = self._is_over or _ends(value)

    def add(self, data: str, event: str = "") -> None:
        """Add the data of an event; an event of the name `error` is an error, whatever its data is.

        An event without data, or of a name such as `ping`, only keeps the connection open. Behind the end of
        the answer a text such as `done` is no loss.
        """
        if data.strip().upper() == DONE:
            self.ended = True
            return
        if event in _KEEP_ALIVES or not (data.strip() or event == "error"):
            return
        try:
            value = LENIENT.decode(data)
        except (ValueError, RecursionError):
            value = data
        if event == "error":
            value = value if isinstance(value, dict) and "error" in value else {"error": value}
        if isinstance(value, dict):
            self.keep(value)
        elif self.whole:
            self.whole = self._is_over


def pieces_in(text: str) -> Pieces | None:
    """The pieces of a stream; None if the text is something else."""
    pieces, data, event, at, broken = Pieces(), list[str](), "", 0, 0
    while at < len(text) and broken < MOST_BROKEN:
        if len(pieces.objects) >= MOST_PIECES:
            pieces.whole = False
            break
        if text[at] == "{" and not data:
            before = len(pieces.objects)
            at = _read_object(text, at, pieces)
            broken += len(pieces.objects) == before
            continue
        line, at = _line(text, at)
        name, _, value = line.partition(":")
        if not line.strip():
            _end_event(pieces, data, event)
            data, event = [], ""
        elif name == "data":
            data.append(value.removeprefix(" "))
        elif name == "event":
            event = value.strip()
        elif name not in ("", "id", "retry"):  # a line without a name is a comment
            if not pieces.objects:
                return None
            pieces.whole = False
    _end_event(pieces, data, event)
    return pieces if pieces.objects else None


def _line(text: str, at: int) -> tuple[str, int]:
    """The line that begins here, and where the next one begins."""
    match = _LINE.match(text, at)
    return (match[1], match.end()) if match else ("", len(text))


def _read_object(text: str, at: int, pieces: Pieces) -> int:
    """Add the JSON object that begins here, and return where the text goes on."""
    try:
        value, end = LENIENT.raw_decode(text, at)
    except (ValueError, RecursionError):
        pieces.whole = False
        return _line(text, at)[1]
    pieces.keep(value)
    return end


def _end_event(pieces: Pieces, data: list[str], event: str) -> None:
    """Add an event; some servers leave out the empty line between events, so each line may be one."""
    joined = "\n".join(data)
    if len(data) > 1 and not _is_json(joined):
        for line in data:
            pieces.add(line, event)
    elif data:
        pieces.add(joined, event)


def _is_json(text: str) -> bool:
    try:
        LENIENT.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def join(pieces: Pieces) -> dict[str, Any] | None:
    """The reply that these pieces make; None if they are no answer.

    Raises:
        TransientError: the stream broke off before its end; `partial` is the text that arrived.
    """
    first = pieces.objects[0]
    if len(pieces.objects) == 1 and "delta" not in _choice(first):
        return first
    if any(isinstance(piece.get("choices"), list) for piece in pieces.objects):
        return _join_openai(pieces)
    if any(isinstance(piece.get("message"), dict) for piece in pieces.objects):
        return _join_ollama(pieces)
    return None


def text_in(pieces: Pieces) -> str:
    """The text of an answer that has arrived, also if the pieces are no whole answer."""
    choices = list(map(_choice, pieces.objects))
    so_far = [text_of(mapping(choice.get("message")).get("content")) for choice in choices]
    return (
        _joined([mapping(choice.get("delta")) for choice in choices], "content")
        or next(filter(None, reversed(so_far)), "")  # each one holds the whole text so far
        or _joined([mapping(piece.get("message")) for piece in pieces.objects], "content")
    )


def text_of(content: object) -> str:
    """The text of a message: a text, or a list of parts, some of which may be thinking."""
    parts = content if isinstance(content, list) else [content]
    return "".join(text for part in parts if isinstance(text := _text_of_part(part), str))


def _text_of_part(part: object) -> object:
    if not isinstance(part, dict):
        return part
    is_thinking = str(part.get("type")).startswith(("thinking", "reasoning"))
    return None if is_thinking else part.get("text")


def _join_openai(pieces: Pieces) -> dict[str, Any]:
    choices = [choice for piece in pieces.objects if (choice := _choice(piece))]
    deltas = [mapping(choice.get("delta")) for choice in choices]
    messages = [choice["message"] for choice in choices if isinstance(choice.get("message"), dict)]
    ends = [reason_in(choice.get("finish_reason")) for choice in choices]
    reasons = [end for end in ends if word_of(end) not in UNKNOWN]
    message: Mapping[str, Any] = {
        "content": _joined(deltas, "content"),
        "reasoning": _joined(deltas, "reasoning") or _joined(deltas, "reasoning_content"),
        "refusal": _joined(deltas, "refusal"),
        "tool_calls": [call for delta in deltas for call in mappings(delta.get("tool_calls"))],
    }
    if messages and not any(message.values()):  # each one holds the whole text so far
        message = messages[-1]
    if not pieces.whole or not (reasons or pieces.ended):
        raise _broken_off(text_in(pieces))
    tokens = [
        token for choice in choices for token in mappings(mapping(choice.get("logprobs")).get("content"))
    ]
    choice = {
        "message": message,
        "finish_reason": reasons[-1] if reasons else None,
        "logprobs": {"content": tokens},
    }
    return {**_last_of(pieces.objects, "model", "usage", "timings"), "choices": [choice]}


def _join_ollama(pieces: Pieces) -> dict[str, Any]:
    messages = [mapping(piece.get("message")) for piece in pieces.objects]
    text, thinking = _joined(messages, "content"), _joined(messages, "thinking")
    last = next((piece for piece in reversed(pieces.objects) if piece.get("done") is True), None)
    if last is None or not pieces.whole:
        raise _broken_off(text_in(pieces))
    tokens = [token for piece in pieces.objects for token in mappings(piece.get("logprobs"))]
    return {**last, "message": {"content": text, "thinking": thinking}, "logprobs": tokens}


def _ends(piece: Mapping[str, Any]) -> bool:
    """Whether this piece says that the answer has ended."""
    reason = reason_in(_choice(piece).get("finish_reason"))
    return piece.get("done") is True or word_of(reason) not in UNKNOWN


def _broken_off(text: str) -> TransientError:
    return TransientError(
        "the answer came as a stream, and the stream broke off before its end",
        kind="bad_response",
        partial=text or None,
    )


def _choice(piece: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a piece that belongs to the first answer; empty if it has none."""
    choices = mappings(piece.get("choices"))
    return next((choice for choice in choices if choice.get("index") in (0, None)), {})


def _joined(parts: list[Mapping[str, Any]], key: str) -> str:
    """The texts of this key in all parts."""
    return "".join(text_of(part.get(key)) for part in parts)


def _last_of(pieces: list[dict[str, Any]], *keys: str) -> dict[str, Any]:
    """The last value of each key that is not empty."""
    return {key: piece[key] for piece in pieces for key in keys if piece.get(key)}
