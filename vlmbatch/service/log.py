"""The log of the service: one line for each request, without images, answers and keys."""

import json
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

from vlmbatch.observers.format import clean
from vlmbatch.service.call import Call

LONGEST_PROMPT = 50
"""The log has at most this many characters of a prompt."""
QUIET_PATHS = frozenset(("/health", "/ready", "/metrics"))
"""Programs ask these paths every few seconds; the log has only their failures."""


class ServiceLog:
    """Writes one line for each request and each notice, as text or as JSON."""

    def __init__(self, stream: TextIO, *, as_json: bool, only_failures: bool = False) -> None:
        """Any thread may write to `stream`."""
        self._stream = stream
        self._as_json = as_json
        self._only_failures = only_failures
        self._lock = threading.Lock()

    def request(self, call: Call) -> None:
        """Write the line of a request that has ended."""
        if call.status < 400 and (self._only_failures or call.path in QUIET_PATHS):
            return
        fields = _fields(call)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        if self._as_json:
            self._write(json.dumps({"time": now, "event": "request", **fields}))
        else:
            self._write(f"{now} {_as_text(fields)}")

    def say(self, text: str) -> None:
        """Write a notice about the service itself."""
        if self._as_json:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._write(json.dumps({"time": now, "event": "notice", "message": text}))
        else:
            self._write("\n".join(f"vlmbatch: {clean(line)}" for line in text.splitlines()))

    def _write(self, line: str) -> None:
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


def _fields(call: Call) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "method": call.method[:20],
        "path": call.path[:200],
        "status": call.status,
        "duration_s": round(call.duration_s, 3),
        "request_id": call.request_id,
        "address": call.address,
    }
    if call.key is not None:
        fields["key"] = call.key.name
    if call.model:
        fields["model"] = call.model
    if call.kind:
        fields["kind"] = call.kind
    if call.prompt:
        fields["prompt"] = call.prompt[:LONGEST_PROMPT]
    if call.answer_chars is not None:
        fields["answer_chars"] = call.answer_chars
    if call.cached:
        fields["cached"] = True
    return fields


def _as_text(fields: dict[str, Any]) -> str:
    """`POST /analyze 200 0.532s request_id=...`; texts with blanks are in quotes."""
    names = ("method", "path", "status", "duration_s")
    first = " ".join(_word(fields[name]) for name in names)
    words = (f"{name}={_word(value)}" for name, value in fields.items() if name not in names)
    return f"{first}s {' '.join(words)}"


def _word(value: object) -> str:
    text = clean(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text or '"' in text else text
