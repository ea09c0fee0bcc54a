"""Plain lines for the user about the events of a run."""

import threading
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from vlmbatch.events import (
    BugFound,
    EndpointResumed,
    Event,
    ImageFinished,
    PreflightDelayed,
    RetryScheduled,
    RunFinished,
    RunStarted,
    RunStopping,
)
from vlmbatch.observers.failures import FirstFailures
from vlmbatch.observers.format import clean, duration, endpoint_lines, summary_line
from vlmbatch.observers.meter import SEARCHING, Meter
from vlmbatch.observers.notices import Notices
from vlmbatch.streams import lossy

LINE_EVERY_S = 30.0


class LineObserver:
    """Prints events as plain lines; the base class of Bar and Lines."""

    def __init__(
        self,
        stream: TextIO,
        *,
        verbose: bool = False,
        shows_failures: bool = True,
        searching: str = SEARCHING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`verbose` also prints every retry, and each failed image at once; `clock` returns seconds.

        `searching` is the state until the run has begun.

        Without `shows_failures`, failed images are only counted, since their answers' place shows them.
        """
        self.console = self._make_console(lossy(stream))
        self.meter = Meter(clock, searching=searching)
        self._verbose = verbose
        self._shows_each = shows_failures and verbose
        self._shows_first = shows_failures and not verbose
        self._notices = Notices()
        self._delay = ""
        self._failures = FirstFailures()

    def _make_console(self, stream: TextIO) -> Console:
        return Console(file=stream, highlight=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Do nothing: there is nothing to close."""

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        self.meter.update(event)
        if self._shows_first:
            self._failures(event)
        for line in self._lines(event):
            self.say(line)

    def say(self, line: str) -> None:
        """Print one line, above the bar if there is one."""
        text = Text(clean(line))
        self.console.print(text, soft_wrap=not self._fits_by_words(text))

    def _fits_by_words(self, text: Text) -> bool:
        """Whether the terminal is wide enough for each word; a longer path must stay whole to be copied."""
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            return False
        return all(cell_len(word) <= self.console.width for word in text.plain.split())

    def _lines(self, event: Event) -> list[str]:
        notices = self._notices.of(event)
        match event:
            case RunStarted():
                return [*_started(event), *notices]
            case BugFound(message=message, trace=trace):
                traced = trace.splitlines() if self._verbose else ["  --verbose shows the traceback"]
                return [message, *traced]
            case PreflightDelayed(message=message):
                is_new, self._delay = message != self._delay, message
                return [self.meter.state] if self._verbose and is_new else []
            case EndpointResumed(paused_s=paused_s):
                name = event.endpoint if self.meter.endpoints > 1 else f"the {self.meter.noun}"
                return [f"{name} is up again after {duration(paused_s)}"]
            case RunStopping(drain_s=drain_s, error=None):
                wait = f"waiting up to {duration(drain_s)} for requests in flight"
                return [f"stopping: {wait}; a second signal or Ctrl-C stops at once"]
            case RetryScheduled() if self._verbose:
                return [f"{event.id}: {event.kind}: {event.message}; retry in {event.delay_s:.1f} s"]
            case ImageFinished(result=result) if result.failure is not None and self._shows_each:
                return [f"{result.id}: {result.failure.kind}: {result.failure.message}"]
            case RunFinished(summary=summary):
                failures = self._failures.lines(summary.failed)
                return [summary_line(summary), *endpoint_lines(summary), *failures]
            case _:
                return notices


def _started(event: RunStarted) -> list[str]:
    """The lines at the start: model, endpoints, concurrency, output and fallbacks."""
    endpoint = event.endpoint
    to = "records are not kept"
    if event.output is not None:
        to = f"records to {'standard output' if event.output == '-' else event.output}"
    places = ", ".join((endpoint.url, *event.others))
    pace = f"{event.concurrency} at once{' at first' if event.adapts else ''}, " if event.concurrency else ""
    lines = [f"using {endpoint.model} ({endpoint.backend}, {places}), {pace}{to}"]
    if event.fallbacks:
        lines.append(f"fallback: {', then '.join(event.fallbacks)}")
    return lines


class Lines(LineObserver):
    """Prints a progress line every half minute and the summary; for output that is not a terminal."""

    def __init__(
        self,
        stream: TextIO,
        *,
        verbose: bool = False,
        shows_failures: bool = True,
        searching: str = SEARCHING,
        every_s: float = LINE_EVERY_S,
    ) -> None:
        super().__init__(stream, verbose=verbose, shows_failures=shows_failures, searching=searching)
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
