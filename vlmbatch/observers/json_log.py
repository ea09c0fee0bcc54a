"""Each event as one JSON line, for programs that watch a run."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TextIO

from vlmbatch.events import Event, ImageFinished
from vlmbatch.streams import lossy


class JsonLog:
    """Writes JSON lines with `time`, `event` and the event's fields.

    An image's answer is not in it: that stands in its record.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = lossy(stream)

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(event).__name__).lstrip("_")
        told = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": name, **_told(event)}
        self._stream.write(json.dumps(told, default=str) + "\n")
        self._stream.flush()


def _told(event: Event) -> dict[str, Any]:
    if not isinstance(event, ImageFinished):
        return asdict(event)
    result = event.result
    told: dict[str, Any] = {"id": result.id, "status": "ok" if result.ok else "error"}
    if result.failure:
        told |= {"kind": result.failure.kind, "message": result.failure.message}
    if result.duplicate_of is not None:
        told["duplicate_of"] = result.duplicate_of
    return told | {
        "cached": result.cached,
        "attempts": result.attempts,
        "duration_s": round(result.duration_s, 3),
    }
