"""The lines at the end of a run with --quiet: only what a person must look at."""

from collections.abc import Iterator

from vlmbatch.config import RunConfig
from vlmbatch.events import Event, SourceProblem
from vlmbatch.observers import FirstFailures, summary_line
from vlmbatch.pipeline.empty_paths import empty_notice
from vlmbatch.records import Summary

SHOWN_UNREAD = 5
"""The most folders and files named that cannot be read."""


class QuietEnd:
    """Receives the events of a run; afterwards it has the warnings, and the failures if the run has some."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._failures = FirstFailures()
        self._unread: list[str] = []

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        self._failures(event)
        if isinstance(event, SourceProblem) and len(self._unread) < SHOWN_UNREAD:
            self._unread.append(f"{event.path}: {event.message}")

    def lines(self, summary: Summary, *, failed: bool) -> Iterator[str]:
        """Yield the lines. `failed`: the failures are more than --max-failures allows."""
        for row in summary.endpoints:
            if not row.model:
                yield f"{row.url} was down during the whole run; start it, or leave it out"
        if not summary.stopped and (notice := empty_notice(self._config, summary.empty_paths)) is not None:
            yield notice
        if failed:
            yield from (summary_line(summary), *self._failures.lines(summary.failed), *self._unread)
