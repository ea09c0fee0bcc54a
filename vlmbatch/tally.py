"""Counts what comes of a run, for its summary."""

import time
from collections.abc import Callable

from vlmbatch.records import Result, Summary, Usage


class Tally:
    """Counts results as they are written; the time runs from when it is made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._succeeded = 0
        self._failed = 0
        self._duplicates = 0
        self._cached = 0
        self._usage = Usage()

    def add(self, result: Result) -> None:
        """Count one."""
        if result.completion is None:
            self._failed += 1
        else:
            self._succeeded += 1
            self._duplicates += result.duplicate_of is not None
            self._cached += result.cached
            self._usage += result.completion.usage

    def summary(
        self, *, skipped: int, failed_before: int, unreadable: int, ignored: int, stopped: bool
    ) -> Summary:
        """How it stands now, with what was not asked; see records.Summary."""
        return Summary(
            total=self._succeeded + self._failed + skipped + failed_before,
            succeeded=self._succeeded,
            failed=self._failed,
            skipped=skipped,
            failed_before=failed_before,
            unreadable=unreadable,
            ignored=ignored,
            duplicates=self._duplicates,
            cached=self._cached,
            usage=self._usage,
            duration_s=self._clock() - self._began,
            stopped=stopped,
        )
