"""Each event as one JSON line, for programs that monitor a run."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TextIO

from vlmbatch.events import Event, ImageFinished, ImageTraced
from vlmbatch.streams import lossy


class JsonLog:
    """Writes JSON lines with `time`, `event` and the event's fields.

    The log has no answers: they are in the records. It has no steps of images: they are in traces.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = lossy(stream)

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        if isinstance(event, ImageTraced):
            return
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(event).__name__).lstrip("_")
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "event": name, **_fields(event)}
        self._stream.write(json.dumps(line, default=str) + "\n")
        self._stream.flush()


def _fields(event: Event) -> dict[str, Any]:
    if not isinstance(event, ImageFinished):
        return asdict(event)
    result = event.result
    outcome: dict[str, Any] = {"id": result.id, "status": "ok" if result.ok else "error"}
    if result.failure:
        outcome |= {"kind": result.failure.kind, "message": result.failure.message}
    if result.duplicate_of is not None:
        outcome["duplicate_of"] = result.duplicate_of
    return outcome | {
        "cached": result.cached,
        "attempts": result.attempts,
        "duration_s": round(result.duration_s, 3),
    }
