"""Extracts the error of a reply's body, in every shape that servers and proxies use."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlmbatch.backends.classify.streams import Pieces, join, pieces_in, text_in
from vlmbatch.strict_json import LENIENT, whole

MAX_LENGTH = 500
_MAX_DEPTH = 6
_NO_MESSAGE = "an error without a message"
_ENVELOPES = ("data", "result", "response", "output")
"""The keys under which gateways put the answer itself."""
_NO_ERROR = frozenset(("", "none", "null", "ok", "success", "done", "0", "no error"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """The error of a body: its `message`, its `marks` (type and code) for the table, and a status as `code`.

    `is_error` says that the body has an error object, and is not a page, a stream or unknown text.
    """

    message: str
    marks: tuple[str, ...] = ()
    code: int | None = None
    is_error: bool = True

    @property
    def haystack(self) -> str:
        """The text in which the table's patterns are searched."""
        return "\n".join((self.message[:4000], *self.marks))


def error_in(payload: object) -> str | None:
    """The message of the error in a JSON object, for any status; None if it has no error."""
    body = _error_of(payload, 0)
    return None if body is None else clean(body.message) or _NO_MESSAGE


def answer_in(text: str) -> dict[str, Any] | None:
    """The JSON object of a good reply, also of one that came as a stream; None if there is none, or an error.

    Raises:
        TransientError: the stream broke off before its end.
    """
    value = _unwrapped(_parse(text))
    pieces = Pieces([value]) if isinstance(value, dict) else pieces_in(text)
    if pieces is None or any(_error_of(piece, 0) for piece in pieces.objects):
        return None
    pieces.objects[:] = map(_unwrapped, pieces.objects)
    return join(pieces)


def partial_in(text: str) -> str:
    """The text of an answer in a reply that is no whole answer; empty if there is none."""
    value = _parse(text)
    pieces = Pieces([value]) if isinstance(value, dict) else pieces_in(text)
    return "" if pieces is None else whole(text_in(pieces))


def names_in(reply: Mapping[str, object]) -> str:
    """What a reply has instead of an answer, for a message: its names, since values may hold secrets."""
    return f"it has: {clean(', '.join(reply)) or 'nothing'}"


def list_in(text: str) -> list[Any] | None:
    """The JSON list of a good reply; None if there is none, or an error."""
    value = _parse(text)
    return value if isinstance(value, list) and _error_of(value, 0) is None else None


def read(text: str) -> ErrorBody:
    """The error of a body: its error object, the error in a stream, a page's title, or the plain text."""
    body = _error_of(_parse(text), 0) or _stream(text)
    if body is not None:
        return body
    start = text.lstrip()[:300].lower()
    if start.startswith(("<!doctype", "<html", "<head")) or "<html" in start:
        title = re.search(r"<title[^<>]*>([^<]{1,200})", text[:20_000], re.IGNORECASE)
        message = f"an HTML page (title {title[1].strip()})" if title else "an HTML page"
        return ErrorBody(message=message, is_error=False)
    return ErrorBody(message=text.strip(), is_error=False)


def clean(text: str) -> str:
    """The text as one line of at most 500 printable characters, without picture data and keys."""
    text = re.sub(r"data:[\w/+.-]{0,60};base64,[^\s'\"]*|[A-Za-z0-9+/]{80,}={0,2}", "[data]", text[:20_000])
    text = re.sub(r"(?i)\bbearer\s+\S+|\b(sk|pk|gsk|xai|hf)[-_][\w*.-]{6,}|\bAIza[\w-]{10,}", "[key]", text)
    # control, bidi and lone surrogate characters could overwrite the terminal or fail to print
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


def _parse(text: str) -> object:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return LENIENT.decode(text)
    except (ValueError, RecursionError):
        return None


def _unwrapped(value: Any) -> Any:
    """The answer or piece in the envelope of a gateway, such as `{"code": 0, "data": {"choices": ...}}`."""
    if not isinstance(value, dict) or value.get("error") or _is_failure(value.get("code")):
        return value
    inner = (value.get(key) for key in _ENVELOPES)
    return next((each for each in inner if isinstance(each, dict) and _is_piece(each)), value)


def _is_piece(value: dict[str, object]) -> bool:
    """Whether this is an answer of OpenAI's API or a piece of one; the piece with the usage has no choice."""
    return _answers(value) if value.get("choices") else value.get("choices") == [] and "usage" in value


def _stream(text: str) -> ErrorBody | None:
    """The last error of a stream; None if the text is no stream."""
    pieces = pieces_in(text)
    if pieces is None or (len(pieces.objects) == 1 and text.lstrip().startswith("{")):
        return None
    errors = filter(None, (_error_of(piece, 0) for piece in reversed(pieces.objects)))
    return next(errors, ErrorBody(message="a stream instead of one object", is_error=False))


def _error_of(payload: object, depth: int) -> ErrorBody | None:
    if isinstance(payload, list) and payload:  # Gemini's OpenAI route
        payload = payload[0]
    if not isinstance(payload, dict):
        return None
    error, message = payload.get("error"), payload.get("message")
    answers = _answers(payload)
    if error and not (answers and _is_no_error(error)):
        return _read_value(error if isinstance(error, (str, dict, list)) else payload, depth)
    # vLLM before 0.10 has the fields at the top level; gateways send only {"message": "..."}
    told = isinstance(message, str) and not _is_no_error(message)
    if payload.get("object") == "error" or (told and not answers):
        return _read_value(payload, depth)
    if payload.get("detail") and not answers and "choices" not in payload:  # FastAPI
        return _read_value(payload["detail"], depth)
    return None


def _answers(payload: dict[str, object]) -> bool:
    """Whether the object has what was requested: an answer, a piece of one, or a list of models.

    Gateways add `"message": "Success"` and `"code": 0` to such an object. The code of a failure counts.
    """
    choices = payload.get("choices")
    if _is_failure(payload.get("code")):
        return False
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict) and ("message" in first or "delta" in first):
        return True
    lists = (payload.get("data"), payload.get("models"))
    return isinstance(payload.get("message"), dict) or any(isinstance(each, list) and each for each in lists)


def _is_failure(code: object) -> bool:
    """Whether this value of the key `code` is a status of failure; gateways have many for success."""
    return isinstance(code, (int, str)) and re.fullmatch(r"[45]\d\d", str(code)) is not None


def _is_no_error(error: object) -> bool:
    """Whether this value of the key `error` or `message` says that there was no error."""
    if isinstance(error, dict):
        return str(error.get("code")).lower() in ("0", "200", "ok", "success") or not any(error.values())
    return str(error).strip().lower() in _NO_ERROR


def _read_value(value: object, depth: int) -> ErrorBody:
    if depth > _MAX_DEPTH:
        return ErrorBody(message=_NO_MESSAGE)
    if isinstance(value, dict):
        return _read_object(value, depth)
    if isinstance(value, list):
        return ErrorBody(message="; ".join(_read_value(item, depth + 1).message for item in value[:3]))
    if isinstance(value, str):
        # Ollama 0.30 and later uses llama-server's whole JSON body as its error text
        return _error_of(_parse(value), depth + 1) or ErrorBody(message=value)
    return ErrorBody(message=_NO_MESSAGE if value is None else str(value))


def _read_object(value: dict[str, object], depth: int) -> ErrorBody:
    message = next((value[key] for key in ("message", "msg", "detail", "error") if value.get(key)), None)
    inner = _read_value(message, depth + 1)
    place = _place(value.get("loc")) or value.get("param")
    if isinstance(place, str) and place.rpartition(".")[2] not in inner.message:
        inner = replace(inner, message=f"{inner.message} ({place})")
    behind = _read_metadata(value.get("metadata"), depth)
    if behind is not None:
        both = ": ".join(filter(None, (inner.message, behind.message)))
        inner = replace(inner, message=both, marks=(*inner.marks, *behind.marks))
    code, deeper = value.get("code"), value.get("innererror")
    marks = [value.get("type"), code, deeper.get("code") if isinstance(deeper, dict) else None]
    known = isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600
    return ErrorBody(
        message=inner.message,
        marks=(*inner.marks, *(mark[:MAX_LENGTH] for mark in marks if isinstance(mark, str))),
        code=code if isinstance(code, int) and known else inner.code,
    )


def _place(loc: object) -> str:
    """FastAPI's `loc`, the place of a wrong field, as `messages[0].content`; empty if there is none."""
    steps = [step for step in loc if isinstance(step, (str, int))] if isinstance(loc, list) else []
    if steps[:1] == ["body"] and len(steps) > 1:
        del steps[0]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return path.removeprefix(".")


def _read_metadata(metadata: object, depth: int) -> ErrorBody | None:
    """OpenRouter's additions to its message: the provider's own error, or that the input was flagged."""
    if not isinstance(metadata, dict):
        return None
    marks = ("flagged_input",) if "flagged_input" in metadata else ()
    raw = metadata.get("raw")
    body = _read_value(raw, depth + 1) if isinstance(raw, str) and raw else ErrorBody(message="")
    return ErrorBody(message=body.message, marks=(*body.marks, *marks))
