"""The output of `vlmbatch pull`: for each model a bar on a terminal, else a line."""

import time
from typing import TextIO

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from vlmbatch.cli.console import Console
from vlmbatch.cli.signals import run_until_signal
from vlmbatch.commands.pull import PRESENT, Puller, Step
from vlmbatch.config import RunConfig
from vlmbatch.observers import clean, duration
from vlmbatch.observers.bar import BarConsole
from vlmbatch.observers.format import in_bytes
from vlmbatch.streams import has_terminal


def pull(config: RunConfig, models: list[str], *, wait: bool) -> int:
    """Pull the models, show the progress on standard error, and return the exit code."""
    console = Console(config.display)

    async def work() -> int:
        with _Bars(console, config) as bars:
            await Puller(config=config, wait=wait, on_step=bars.show, on_message=bars.say).pull(models)
        return 0

    return run_until_signal(work, console)


class _Bars:
    """Shows a bar for each model on a terminal, else a line at the end of each pull."""

    def __init__(self, console: Console, config: RunConfig) -> None:
        self._console = console
        self._quiet = config.display.quiet
        self._several = len(config.endpoint.base_url) > 1
        has_bars = has_terminal() and not (self._quiet or config.display.log_json)
        self._progress = _progress(console.stream) if has_bars else None
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._began = time.monotonic()

    def __enter__(self) -> "_Bars":
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """Print a message about a temporary problem; does nothing with --quiet."""
        if self._quiet:
            return
        if self._progress is not None:
            self._progress.console.print(clean(text), soft_wrap=True, markup=False)
        else:
            self._console.say(clean(text))

    def show(self, step: Step) -> None:
        """Show the progress of a model."""
        if self._progress is not None:
            self._update(self._progress, step)
        elif step.done:
            self.say(f"{self._name(step)}: {_came(step, time.monotonic() - self._began)}")
        if step.done:
            self._began = time.monotonic()

    def _update(self, progress: Progress, step: Step) -> None:
        key = (step.place, step.model)
        if key not in self._tasks:
            self._tasks[key] = progress.add_task(clean(self._name(step)), total=None, status="")
        status = _came(step, time.monotonic() - self._began) if step.done else _in_short(step.status)
        # the bar of an empty model, which has no bytes, must be full at the end too
        total = (step.total or 1) if step.done else (step.total or None)
        progress.update(
            self._tasks[key],
            completed=total if step.done else step.completed,
            total=total,
            status=clean(status),
        )

    def _name(self, step: Step) -> str:
        return f"{step.model} at {step.place}" if self._several else step.model


def _progress(stream: TextIO) -> Progress:
    """Make bars that stay visible at the end."""
    return Progress(
        TextColumn("{task.description}", markup=False, style="bold"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False, style="cyan"),
        console=BarConsole(file=stream, highlight=False),
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _in_short(status: str) -> str:
    """Ollama's status without the digest of a layer, which means nothing to the user."""
    return "pulling" if status.startswith("pulling ") and "manifest" not in status else status


def _came(step: Step, seconds: float) -> str:
    if not step.fetched:
        return PRESENT
    return f"fetched {in_bytes(step.fetched)} in {duration(seconds)}"
