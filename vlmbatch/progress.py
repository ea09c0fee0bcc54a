"""Observers that tell a person how a run goes, on standard error: a bar, plain lines, or JSON events."""

import json
import threading
import time
from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from vlmbatch.events import (
    EndpointPaused,
    EndpointResumed,
    Event,
    ImageFinished,
    ImagesSkipped,
    Notice,
    RetryScheduled,
    RunFinished,
    RunStarted,
    SourceProblem,
    TotalKnown,
)
from vlmbatch.records import Summary

LINE_EVERY_S = 30.0
RATE_WINDOW_S = 30.0
SHOWN_FAILURES = 5


def clean(text: str) -> str:
    """Text from files and models without what would steer a terminal, or break a UTF-8 stream."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown.encode("utf-8", "replace").decode("utf-8")


def duration(seconds: float) -> str:
    """`3.2 s`, `4m 05s` or `2h 03m`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h {m:02}m" if hours else f"{m}m {s:02}s"


class Meter:
    """What has been done so far, and how fast it went lately."""

    def __init__(self) -> None:
        self.ok = 0
        self.failed = 0
        self.skipped = 0
        self.total: int | None = None
        self.limit: int | None = None
        self.state = "starting"
        self._began = time.monotonic()
        self._lately: deque[tuple[float, int]] = deque()

    @property
    def done(self) -> int:
        """Images that have their record, from this run or an earlier one."""
        return self.ok + self.failed + self.skipped

    def hear(self, event: Event) -> None:
        """Count this event."""
        match event:
            case RunStarted():
                self.state, self._began = "up", time.monotonic()
            case TotalKnown(total=total):
                self.total = total
            case ImagesSkipped(skipped=skipped):
                self.skipped = skipped
            case EndpointPaused():
                self.state = "away, waiting"
            case EndpointResumed():
                self.state = "up"
            case ImageFinished(result=result):
                self.ok += result.ok
                self.failed += not result.ok
                tokens = result.completion.usage.output_tokens if result.completion else 0
                self._lately.append((time.monotonic(), tokens))
            case _:
                pass

    def rates(self) -> tuple[float, float]:
        """Images and tokens a second over the last half minute."""
        now = time.monotonic()
        while self._lately and now - self._lately[0][0] > RATE_WINDOW_S:
            self._lately.popleft()
        span = max(min(now - self._began, RATE_WINDOW_S), 0.1)
        return len(self._lately) / span, sum(tokens for _, tokens in self._lately) / span

    def line(self) -> str:
        """One line that says it all."""
        images_s, tokens_s = self.rates()
        of = f"/{self.total}" if self.total is not None else ""
        left = (self.total or 0) - self.done
        eta = f", {duration(left / images_s)} left" if left > 0 and images_s > 0 else ""
        state = "" if self.state == "up" else f", endpoint {self.state}"
        return (
            f"{self.done}{of} done, {self.ok} ok, {self.failed} failed, "
            f"{images_s:.1f} images/s, {tokens_s:.0f} tokens/s{eta}{state}"
        )


class Teller:
    """Says what a person should know about events, as plain lines; the base of bar and lines."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        """`verbose` also tells every retry and every failed image."""
        self.console = Console(file=stream, soft_wrap=True, highlight=False)
        self.meter = Meter()
        self._verbose = verbose
        self._failures: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held here."""

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        self.meter.hear(event)
        for line in self._lines(event):
            self.say(line)

    def say(self, line: str) -> None:
        """Print one line, above the bar where there is one."""
        self.console.print(Text(clean(line)))

    def _lines(self, event: Event) -> list[str]:
        match event:
            case RunStarted(endpoint=endpoint, concurrency=concurrency, output=output):
                to = "standard output" if output == "-" else output
                about = f"asking {endpoint.model} ({endpoint.backend}, {endpoint.url})"
                return [f"{about}, {concurrency} at once, records to {to}", *endpoint.notes]
            case Notice(message=message):
                return [message]
            case SourceProblem(path=path, message=message):
                return [f"{path}: {message}"]
            case EndpointPaused(message=message, give_up_s=give_up_s):
                return [f"paused: {message}; trying again for up to {duration(give_up_s)}"]
            case EndpointResumed(paused_s=paused_s):
                return [f"the endpoint is back after {duration(paused_s)}"]
            case RetryScheduled() if self._verbose:
                return [f"{event.id}: {event.kind}: {event.message}; again in {event.delay_s:.1f} s"]
            case ImageFinished(result=result) if result.failure is not None:
                line = f"{result.id}: {result.failure.kind}: {result.failure.message}"
                if self._verbose:
                    return [line]
                self._failures = [*self._failures, line][: SHOWN_FAILURES + 1]
                return []
            case RunFinished(summary=summary):
                return self._summary(summary)
            case _:
                return []

    def _summary(self, summary: Summary) -> list[str]:
        shown = [f"  {line}" for line in self._failures[:SHOWN_FAILURES]]
        if len(self._failures) > SHOWN_FAILURES:
            shown.append(f"  and {summary.failed - SHOWN_FAILURES} more; each has its record")
        return [summary_line(summary), *shown]


def summary_line(summary: Summary) -> str:
    """How a run ended, in one line."""
    if summary.total == 0 and not summary.stopped:
        return f"no images found ({summary.ignored} other files, {summary.unreadable} unreadable folders)"
    parts = [f"{summary.succeeded} answered"]
    for number, what in (
        (summary.failed, "failed"),
        (summary.skipped, "done before"),
        (summary.failed_before, "failed before (--retry-failed asks again)"),
        (summary.ignored, "ignored as no images"),
        (summary.unreadable, "folders unreadable"),
    ):
        if number:
            parts.append(f"{number} {what}")
    rate = summary.succeeded / summary.duration_s if summary.duration_s > 0 else 0.0
    end = "stopped" if summary.stopped else "finished"
    pace = f" ({rate:.1f} images/s, {summary.usage.output_tokens} tokens)" if summary.succeeded else ""
    return f"{end}: {', '.join(parts)} in {duration(summary.duration_s)}{pace}"


class Bar(Teller):
    """A live bar on a terminal."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        super().__init__(stream, verbose=verbose)
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[line]}"),
            console=self.console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("", total=None, line="looking for the endpoint")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Hear an event and redraw."""
        super().__call__(event)
        self._progress.update(
            self._task, total=self.meter.total, completed=self.meter.done, line=self.meter.line()
        )


class Lines(Teller):
    """Where nobody watches: a line every half minute, and the summary."""

    def __init__(self, stream: TextIO, *, verbose: bool = False, every_s: float = LINE_EVERY_S) -> None:
        super().__init__(stream, verbose=verbose)
        self._every_s = every_s
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="vlmbatch-progress", daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._ticker.join()

    def _tick(self) -> None:
        while not self._ended.wait(self._every_s):
            self.say(self.meter.line())


class JsonLog:
    """Each event as one JSON line. An image's answer is not in it: that stands in its record."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(event).__name__).lstrip("_")
        told = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": name, **_told(event)}
        self._stream.write(json.dumps(told) + "\n")
        self._stream.flush()


def _told(event: Event) -> dict[str, Any]:
    if not isinstance(event, ImageFinished):
        return asdict(event)
    result = event.result
    told: dict[str, Any] = {"id": result.id, "status": "ok" if result.ok else "error"}
    if result.failure:
        told |= {"kind": result.failure.kind, "message": result.failure.message}
    return told | {"attempts": result.attempts, "duration_s": round(result.duration_s, 3)}
