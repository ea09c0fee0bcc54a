"""The sentence about the images that are left after a run, and about how to continue."""

from vlmbatch.config import RunConfig
from vlmbatch.events import Event, RunFinished, RunStarted, TotalKnown
from vlmbatch.observers.format import counted
from vlmbatch.records import Summary

EXAMPLE = "answers.jsonl"
STOPPED = 6
"""The exit code of a run that a limit such as --until stopped."""
SIGNALLED = 128
"""The exit code of a run that a signal stopped is this plus the number of the signal."""


class EarlyEnd:
    """Receives the events of a run; afterwards it knows how many images are left."""

    def __init__(self, config: RunConfig, *, goes_on: bool = False) -> None:
        """`goes_on`: the same command goes on where it ended, also without an output file."""
        self._config = config
        self._goes_on = goes_on
        self._started = False
        self._total: int | None = None
        self._summary: Summary | None = None

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        match event:
            case RunStarted():
                self._started = True
            case TotalKnown(total=total):
                self._total = total
            case RunFinished(summary=summary):
                self._summary = summary

    def sentence(self, code: int) -> str | None:
        """The number of images left, and how to continue; None after a whole run, or if no image is done.

        The reader of standard output may end a run on purpose (| head): its exit `code` is 0. With --quiet
        only an error is followed by the sentence: after a signal or a limit, the user has nothing to do.
        """
        summary, limit = self._summary, self._config.input.limit
        if not self._started or summary is None or not summary.total:
            return None
        if summary.stopped:
            is_planned = code == STOPPED or code > SIGNALLED
            if code == 0 or (is_planned and self._config.display.quiet):
                return None
            return f"{self._left(summary)}; {self._way_on()}"
        to_file = self._config.output.output != "-" and not self._config.display.quiet
        if limit is None or summary.succeeded + summary.failed < limit or not to_file:
            return None
        return f"--limit {limit} is reached; if there are further images: {self._way_on()}"

    def last_words(self) -> str:
        """What to say before a second signal ends the process at once; nothing with --quiet."""
        if self._config.display.quiet:
            return ""
        kept = (
            "answers that were printed" if self._config.output.output == "-" else "records that were written"
        )
        return f"ended at once: the {kept} are complete; {self._way_on()}"

    def _left(self, summary: Summary) -> str:
        if self._total is None:
            return f"{counted(summary.total, 'image')} done, the other images are left"
        # the walk ended early: it may not have reached all images that an earlier run has done
        most = "at most " if summary.skipped or summary.failed_before else ""
        return f"{most}{max(self._total - summary.total, 0)} of {counted(self._total, 'image')} left"

    def _way_on(self) -> str:
        output = self._config.output
        if output.output == "-" and not self._goes_on:
            start = "the same command begins again with the first image"
            return f"{start}; add -o {EXAMPLE} to keep records and to go on next time"
        without = " without --overwrite" if output.overwrite else ""
        return f"the same command{without} goes on where this run ended"
