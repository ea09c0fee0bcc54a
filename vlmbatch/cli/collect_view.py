"""`vlmbatch collect`: shows the collection of a batch as a run."""

from typing import TYPE_CHECKING

from vlmbatch.cli.command_run import Kind, run
from vlmbatch.config import RunConfig
from vlmbatch.protocols import Observer

if TYPE_CHECKING:
    from vlmbatch.jobs.collect import Collection


def show(config: RunConfig, *, waits: bool) -> int:
    """Collect, show the progress on standard error and in the reports, and return the exit code."""

    def begin(config: RunConfig, observers: list[Observer], stdout: bool) -> "Collection":
        from vlmbatch.jobs.collect import Collection  # fails with a message without its packages

        return Collection(config, observers, waits=waits)

    kind = Kind(begin=begin, shows_answers=False, goes_on=True, searching="waiting for the first record")
    return run(config, kind)
