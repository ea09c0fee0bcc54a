"""Says what a person should know of a run's events, as plain lines."""

import threading
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console
from rich.text import Text

from vlmbatch.events import (
    EndpointPaused,
    EndpointResumed,
    Event,
    ImageFinished,
    Notice,
    RetryScheduled,
    RunFinished,
    RunStarted,
    RunStopping,
    SourceProblem,
)
from vlmbatch.observers.format import clean, duration, endpoint_lines, summary_line
from vlmbatch.observers.meter import Meter
from vlmbatch.records import Summary
from vlmbatch.streams import lossy

LINE_EVERY_S = 30.0
SHOWN_FAILURES = 5


class LineObserver:
    """Says what a person should know about events, as plain lines; the base of bar and lines."""

    def __init__(
        self, stream: TextIO, *, verbose: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`verbose` also tells every retry, and every failed image at once; `clock` gives seconds."""
        self.console = self._make_console(lossy(stream))
        self.meter = Meter(clock)
        self._verbose = verbose
        self._failures: list[str] = []

    def _make_console(self, stream: TextIO) -> Console:
        return Console(file=stream, highlight=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is held here."""

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        self.meter.update(event)
        for line in self._lines(event):
            self.say(line)

    def say(self, line: str) -> None:
        """Print one line, above the bar where there is one."""
        self.console.print(Text(clean(line)), soft_wrap=True)

    def _lines(self, event: Event) -> list[str]:
        match event:
            case RunStarted():
                return _started(event)
            case Notice(message=message):
                return [message]
            case SourceProblem(path=path, message=message):
                return [f"{path}: {message}"]
            case EndpointPaused() | EndpointResumed():
                return [_outage_line(event)]
            case RunStopping(drain_s=drain_s, error=None):
                within = f"for up to {duration(drain_s)}"
                return [f"stopping: waiting {within} for the images in flight; again to stop at once"]
            case RetryScheduled() if self._verbose:
                return [f"{event.id}: {event.kind}: {event.message}; again in {event.delay_s:.1f} s"]
            case ImageFinished(result=result) if result.failure is not None:
                return self._failed(f"{result.id}: {result.failure.kind}: {result.failure.message}")
            case RunFinished(summary=summary):
                return self._summary(summary)
            case _:
                return []

    def _failed(self, line: str) -> list[str]:
        if self._verbose:
            return [line]
        if len(self._failures) < SHOWN_FAILURES:
            self._failures.append(line)
        return []

    def _summary(self, summary: Summary) -> list[str]:
        shown = [f"  {line}" for line in self._failures]
        if shown and summary.failed > SHOWN_FAILURES:
            shown.append(f"  and {summary.failed - SHOWN_FAILURES} more; each has its record")
        return [summary_line(summary), *endpoint_lines(summary), *shown]


def _outage_line(event: EndpointPaused | EndpointResumed) -> str:
    """That an endpoint went away or is back; with others that go on, which one."""
    if isinstance(event, EndpointResumed):
        who = event.endpoint if event.others_up else "the endpoint"
        return f"{who} is back after {duration(event.paused_s)}"
    if event.others_up:
        return f"{event.endpoint} is away: {event.message}; the others go on"
    return f"paused: {event.message}; trying again for up to {duration(event.give_up_s)}"


def _started(event: RunStarted) -> list[str]:
    """Who is asked, at which pace, and where records go."""
    endpoint = event.endpoint
    to = "standard output" if event.output == "-" else event.output
    places = ", ".join((endpoint.url, *event.others))
    pace = f"{event.concurrency} at once" + (" to begin with" if event.adapts else "")
    lines = [f"asking {endpoint.model} ({endpoint.backend}, {places}), {pace}, records to {to}"]
    if event.fallbacks:
        lines.append(f"where that fails: {', then '.join(event.fallbacks)}")
    return [*lines, *endpoint.notes, *event.notes]


class Lines(LineObserver):
    """Where nobody watches: a line every half minute, and the summary."""

    def __init__(self, stream: TextIO, *, verbose: bool = False, every_s: float = LINE_EVERY_S) -> None:
        super().__init__(stream, verbose=verbose)
        self._every_s = every_s
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="vlmbatch-progress", daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._ticker.join()

    def _tick(self) -> None:
        while not self._ended.wait(self._every_s):
            self.say(self.meter.line())
