"""`vlmbatch enqueue`: shows how many images are in the queue, and what to type next."""

import asyncio
import shlex
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vlmbatch.cli.command_run import PARTLY
from vlmbatch.cli.console import Console
from vlmbatch.cli.signals import run_until_signal
from vlmbatch.config import RunConfig
from vlmbatch.errors import QueueAwayError, QueueFullError, StoreAwayError
from vlmbatch.events import SourceProblem
from vlmbatch.observers import clean
from vlmbatch.observers.bar import BarConsole
from vlmbatch.observers.format import counted, folders_or_files
from vlmbatch.observers.lines import LINE_EVERY_S
from vlmbatch.pipeline.empty_paths import empty_notice
from vlmbatch.streams import has_terminal

if TYPE_CHECKING:
    from vlmbatch.jobs.enqueue import EnqueueCounts, Enqueuer


def show(config: RunConfig) -> int:
    """Add the images, show the progress on standard error, and return the exit code."""
    console = Console(config.display)

    async def work() -> int:
        from vlmbatch.jobs.enqueue import Enqueuer  # fails with a message without its packages

        with _View(config, console) as view:
            enqueuer = Enqueuer(config, view.problem, lambda: view.progress(enqueuer.counts))
            try:
                await enqueuer.run()
            except (QueueAwayError, QueueFullError, StoreAwayError, asyncio.CancelledError):
                if enqueuer.counts.queued:
                    view.say(f"{_added(enqueuer.counts)}; the same command adds the others", warns=True)
                raise
            view.end(enqueuer)
        return PARTLY if enqueuer.counts.unread else 0

    return run_until_signal(work, console)


class _View:
    """The counts: one line on a terminal, elsewhere a line each half minute; and the last lines."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self._config = config
        self._console = console
        has_bar = has_terminal() and not (config.display.quiet or config.display.log_json)
        self._bar = _bar(console) if has_bar else None
        self._task = None if self._bar is None else self._bar.add_task("looking for images")
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str, *, warns: bool = False) -> None:
        """Print a message; with --quiet only one that warns."""
        if self._config.display.quiet and not warns:
            return
        if self._bar is not None:
            self._bar.console.print(clean(text), soft_wrap=True, markup=False)
        else:
            self._console.say(clean(text))

    def problem(self, problem: SourceProblem) -> None:
        """Print why a folder or file is not in the queue."""
        self.say(f"{problem.path}: {problem.message}", warns=True)

    def progress(self, counts: "EnqueueCounts") -> None:
        """Show the counts so far."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=_added(counts))
        elif time.monotonic() - self._told >= LINE_EVERY_S:
            self._told = time.monotonic()
            self.say(_added(counts))

    def end(self, enqueuer: "Enqueuer") -> None:
        """Print the last lines."""
        counts = enqueuer.counts
        if (notice := empty_notice(self._config, enqueuer.source.empty_paths)) is not None:
            self.say(notice, warns=True)
        if counts.unread:
            told = f"{folders_or_files(counts.unread)} could not be read, so the queue does not have them"
            self.say(f"{told}; the same command tries them again", warns=True)
        self.say(_added(counts))
        for line in _next(self._config, enqueuer):
            self.say(line)


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=BarConsole(file=console.stream, highlight=False),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _added(counts: "EnqueueCounts") -> str:
    """The counts: `12 images are in the queue (10 new, 2 added before), 5 done before`."""
    verb = "is" if counts.queued == 1 else "are"
    queued = f"{counted(counts.queued, 'image')} {verb} in the queue"
    parts = [f"{queued} ({counts.new} new, {counts.known} added before)"]
    if counts.skipped:
        parts.append(f"{counts.skipped} done before")
    if counts.failed_before:
        parts.append(f"{counts.failed_before} failed before (--retry-failed retries them)")
    return ", ".join(parts)


def _next(config: RunConfig, enqueuer: "Enqueuer") -> Iterator[str]:
    """What to type next."""
    if not enqueuer.counts.queued:
        yield "there is nothing to do"
        return
    from vlmbatch.jobs.opening import typed, worker_command

    options, output = config.jobs, config.output.output
    if enqueuer.workers:
        yield counted(enqueuer.workers, "worker") + (" is" if enqueuer.workers == 1 else " are") + " running"
    else:
        yield f"no worker is running for these jobs; start one with: {worker_command(config)}"
    batch = "" if options.batch == "default" else f" --batch {options.batch}"
    file = "answers.jsonl" if output == "-" else shlex.quote(output)
    place = typed("--queue", options.queue)
    yield f"collect the records with: vlmbatch collect{place}{batch} -o {file}"
