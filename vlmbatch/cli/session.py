"""One run in front of a person: its signals, its progress and its exit code."""

import asyncio
import os
import signal
import stat
import sys
from contextlib import ExitStack, suppress
from functools import partial

from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.errors import OutputClosed, VlmbatchError
from vlmbatch.events import Event, Notice
from vlmbatch.progress import Bar, JsonLog, Lines, clean, summary_line
from vlmbatch.protocols import Observer
from vlmbatch.records import Summary

PARTLY = 3
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(config: RunConfig) -> int:
    """Run, tell how it goes on standard error, and return the exit code."""
    try:
        if config.display.dry_run:
            from vlmbatch.cli.dry_run import tell_plan

            tell_plan(config)
            return 0
        with ExitStack() as stack:
            return asyncio.run(Session(config, _observers(config, stack)).run())
    except OutputClosed:
        return 0
    except VlmbatchError as error:
        tell(config, "\n".join(map(clean, str(error).splitlines())))
        return error.exit_code


def tell(config: RunConfig, text: str) -> None:
    """Say it on standard error; where nobody can hear it, the exit code still tells."""
    with suppress(OSError):
        if config.display.log_json:
            JsonLog(sys.stderr)(Notice(message=text))
        else:
            print("vlmbatch:", text, file=sys.stderr, flush=True)


class Session:
    """One run and the signals that reach it."""

    def __init__(self, config: RunConfig, observers: list[Observer]) -> None:
        self._config = config
        self._batch = Batch(config, [self._hear, *observers], stdout=True)
        self._started = False
        self._signal: signal.Signals | None = None

    async def run(self) -> int:
        """The exit code; 128 and the signal's number when one ended the run."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell that starts it with &
                loop.add_signal_handler(number, partial(self._on_signal, number, task))
        try:
            async for _ in self._batch:
                pass
        except asyncio.CancelledError:
            if self._signal is None:
                raise
        if self._signal is not None:
            return 128 + self._signal
        summary = self._batch.summary
        code = exit_code(self._config, summary)
        if code and summary is not None and self._config.display.quiet:
            tell(self._config, summary_line(summary))
        return code

    def _hear(self, event: Event) -> None:
        self._started = True

    def _on_signal(self, number: signal.Signals, task: "asyncio.Task[int] | None") -> None:
        """The first lets what is in flight finish; the second ends at once. Records are whole either way."""
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        if self._started:
            if not self._config.display.quiet:
                tell(self._config, "stopping after the images in flight; again to stop at once")
            self._batch.stop()
        elif task is not None:
            task.cancel()


def exit_code(config: RunConfig, summary: Summary | None) -> int:
    """0 when all is done or the failures are within --max-failures, else 3."""
    if summary is None:
        return 0
    failed = summary.failed + summary.failed_before + summary.unreadable
    return 0 if config.run.tolerates(failed, summary.total) else PARTLY


def _observers(config: RunConfig, stack: ExitStack) -> list[Observer]:
    display = config.display
    if display.log_json:
        return [JsonLog(sys.stderr)]
    if display.quiet:
        return []
    watched = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if config.output.output == "-" and stat.S_ISFIFO(os.fstat(1).st_mode):
        watched = False  # what reads the pipe prints to the same terminal, right through a bar
    shape = Bar if watched else Lines
    return [stack.enter_context(shape(sys.stderr, verbose=display.verbose))]
