"""Notices: the messages of a run or session that a user must see, and Python warnings for them."""

import sys
import warnings
from dataclasses import dataclass
from types import FrameType
from typing import Self

from vlmbatch.errors import VlmbatchWarning
from vlmbatch.events import (
    BugFound,
    EndpointPaused,
    Event,
    ImageFinished,
    Notice,
    PreflightDelayed,
    RunStarted,
    SourceProblem,
)
from vlmbatch.observers.format import clean, duration
from vlmbatch.observers.meter import SEARCHING

SHORT_WAIT_S = 10.0
"""A shorter wait at the start has no notice: soon the run begins, or its error has the reason."""


class Notices:
    """Turns the events of one run or session into notices; VlmbatchWarning lists these events.

    Each notice is one line without control characters; only that of a bug has several, with the traceback.
    """

    def __init__(self) -> None:
        self._are_several = False
        self._reported_at_start: dict[str, str] = {}
        self._delays: dict[str, str] = {}

    def of(self, event: Event) -> list[str]:
        """The notices of this event; none for most events."""
        match event:
            case RunStarted():
                self._are_several = bool(event.others or event.fallbacks)
                self._reported_at_start = dict(event.away)
                return [clean(note) for note in (*event.endpoint.notes, *event.notes)]
            case ImageFinished(result=result):  # so a later outage has a notice of its own
                self._reported_at_start.pop(result.endpoint.url, None)
            case Notice(message=message):
                return [clean(message)]
            case BugFound(message=message, trace=trace):
                return ["\n".join(map(clean, (message, *trace.splitlines())))]
            case SourceProblem(path=path, message=message):
                return [clean(f"{path}: {message}")]
            case EndpointPaused():
                return self._outage(event)
            case PreflightDelayed():
                return self._delay(event)
            case _:
                pass
        return []

    def _delay(self, event: PreflightDelayed) -> list[str]:
        """The notice about a long wait for an endpoint at the start; each reason has one notice."""
        if event.left_s <= SHORT_WAIT_S or self._delays.get(event.endpoint) == event.message:
            return []
        self._delays[event.endpoint] = event.message
        return [clean(f"{SEARCHING}: {event.message}; retrying for up to {duration(event.left_s)}")]

    def _outage(self, event: EndpointPaused) -> list[str]:
        """The notice about an endpoint that went down, unless it was reported at the start."""
        was_reported = self._reported_at_start.pop(event.endpoint, None) == event.message
        if event.others_up:
            others = f"{event.endpoint} is down: {event.message}; the other endpoints go on"
            return [] if was_reported else [clean(others)]
        paused = "paused, all endpoints are down" if self._are_several else "paused"
        return [clean(f"{paused}: {event.message}; retrying for up to {duration(event.give_up_s)}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the user's code, to which warnings refer."""

    file: str
    number: int
    module: str

    @classmethod
    def of(cls, frame: FrameType | None) -> Self:
        """The current line of this frame; None only if C code without a Python caller called vlmbatch."""
        if frame is None:
            return cls(file="sys", number=1, module="sys")
        module = str(frame.f_globals.get("__name__", "<unknown>"))
        return cls(file=frame.f_code.co_filename, number=frame.f_lineno, module=module)

    def warn(self, notice: str) -> None:
        """Show the notice as a warning at this line, even if an earlier run showed the same one.

        Raises:
            VlmbatchWarning: a filter of the user turns the warning into an exception.
        """
        warnings.warn_explicit(
            notice, VlmbatchWarning, self.file, self.number, module=self.module, registry=None
        )


def warn_caller(notice: str) -> None:
    """Show the notice as a warning at the line that called the caller; raises as Line.warn() does."""
    Line.of(sys._getframe(2)).warn(notice)
