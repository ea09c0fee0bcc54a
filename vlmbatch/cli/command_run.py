"""One run of the command: its signals, its progress, its reports and its exit code."""

import asyncio
import gc
import logging
import os
import stat
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Protocol

from vlmbatch import system
from vlmbatch.aio import Unawaited
from vlmbatch.batch import Batch
from vlmbatch.cli.answers import NOT_KEPT, Answers, open_answers, shows_text
from vlmbatch.cli.console import Console
from vlmbatch.cli.early_end import SIGNALLED, STOPPED, EarlyEnd
from vlmbatch.cli.output_name import require_records_name
from vlmbatch.cli.quiet_end import QuietEnd
from vlmbatch.cli.reports import open_reports
from vlmbatch.cli.signals import Reports, SignalHandler
from vlmbatch.config import RunConfig
from vlmbatch.errors import LockedError, OutputClosed, VlmbatchError, resource_errors
from vlmbatch.events import Event, RunStarted, RunStopping, tell
from vlmbatch.observers import Bar, JsonLog, Lines, clean
from vlmbatch.observers.meter import SEARCHING
from vlmbatch.protocols import Observer
from vlmbatch.records import Result, Summary
from vlmbatch.streams import has_terminal, on_one_terminal

BUG = 1
PARTLY = 3
DESCRIPTORS = 10_240
"""Enough for 4096 connections, the maximum."""
SWITCH_S = 0.0005
"""How long a thread that prepares pictures may hold the interpreter while an answer waits for it."""


class Work(Protocol):
    """What a command works on, such as a Batch: it yields each result once it is written."""

    summary: Summary | None

    def stop(self) -> None:
        """Begin no more work; may be called in any thread."""

    def __aiter__(self) -> AsyncGenerator[Result, None]:
        """Do the work; raises the VlmbatchError that ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of work. `begin` makes it from the options, the observers, and whether stdout gets records.

    `shows_answers`: a terminal may show answers as text. `goes_on`: the same command goes on where it ended,
    also without an output file. `searching` is what the bar shows until the first result can come.
    """

    begin: Callable[[RunConfig, list[Observer], bool], Work]
    shows_answers: bool
    goes_on: bool
    searching: str


def _batch(config: RunConfig, observers: list[Observer], stdout: bool) -> Batch:
    return Batch(config, observers, stdout=stdout, require_images=True)


RUN = Kind(begin=_batch, shows_answers=True, goes_on=False, searching=SEARCHING)


def run(config: RunConfig, kind: Kind = RUN) -> int:
    """Run, show the progress on standard error and in the reports, and return the exit code."""
    console = Console(config.display)
    reports = Reports(console.say)
    early_end = EarlyEnd(config, goes_on=kind.goes_on)
    code, message = BUG, "a bug in vlmbatch; standard error has the traceback"
    try:
        with ExitStack() as stack, resource_errors():
            code = _run(config, kind, stack, console, reports, early_end)
            message = ""
    except OutputClosed as error:
        code, message = error.exit_code if config.output.output == "-" else STOPPED, ""
    except VlmbatchError as error:
        code, message = error.exit_code, "\n".join(map(clean, str(error).splitlines()))
        if isinstance(error, LockedError):
            reports.open.clear()  # their files belong to the run that holds the lock
        if not (isinstance(error, LockedError) and error.is_certain and config.display.quiet):
            console.say(message)
    finally:
        if (told := early_end.sentence(code)) is not None:
            console.say(told)
        code = reports.end(code, message or None)
        console.close()
    return code


def _run(
    config: RunConfig,
    kind: Kind,
    stack: ExitStack,
    console: Console,
    reports: Reports,
    early_end: EarlyEnd,
) -> int:
    require_records_name(config.output.output)
    if config.display.dry_run:
        from vlmbatch.cli.dry_run import show_dry_run

        return 0 if show_dry_run(config, console) else STOPPED
    system.allow_files(DESCRIPTORS)
    sys.setswitchinterval(SWITCH_S)
    logging.raiseExceptions = False  # a library whose logging fails must not print a traceback
    as_text = kind.shows_answers and shows_text(
        config, stdin=sys.stdin.isatty(), stdout=sys.stdout.isatty(), term=os.environ.get("TERM", "")
    )
    observers = _observers(config, kind, stack, console, as_text=as_text)
    answers = open_answers(console, observers) if as_text else None
    reports.open.extend(open_reports(config, lambda text: _warn(observers, console, text)))
    command_run = CommandRun(
        config, kind, [early_end, *observers, *reports.open], console, reports, early_end, answers
    )
    return asyncio.run(command_run.run())


class CommandRun:
    """One run of the command, with its signals."""

    def __init__(
        self,
        config: RunConfig,
        kind: Kind,
        observers: list[Observer],
        console: Console,
        reports: Reports,
        early_end: EarlyEnd,
        answers: Answers | None,
    ) -> None:
        """`answers` shows the results as text; None if standard output gets records, or nothing."""
        self._config = config
        self._console = console
        self._quiet_end = QuietEnd(config) if config.display.quiet else None
        quiet = [] if self._quiet_end is None else [self._quiet_end]
        self._observers: list[Observer] = [self._notify, *quiet, *observers]
        self._answers = answers
        self._work = kind.begin(config, self._observers, answers is None)
        self._signals = SignalHandler(
            self._work.stop, reports, console, drain_s=config.run.drain, last_words=early_end.last_words()
        )

    async def run(self) -> int:
        """Run and return the exit code: 128 plus the signal's number if a signal ended the run."""
        asyncio.get_running_loop().set_default_executor(Unawaited())
        self._signals.install()
        await self._show_results()
        self._signals.finish()
        if self._signals.signal is not None:
            return SIGNALLED + self._signals.signal
        summary = self._work.summary
        code = exit_code(self._config, summary)
        if self._quiet_end is not None and summary is not None:
            for line in self._quiet_end.lines(summary, failed=code == PARTLY):
                self._console.say(clean(line))
        return code

    async def _show_results(self) -> None:
        """Take all results and show them, if they are shown as text."""
        shown = 0
        async with aclosing(aiter(self._work)) as results:
            async for result in results:
                if self._answers is not None:
                    await self._answers.show(result)
                    shown += 1
        summary = self._work.summary
        is_whole = summary is not None and not summary.stopped
        if shown and is_whole and self._config.output.output == "-":
            self._tell(NOT_KEPT)

    def _tell(self, text: str) -> None:
        """Tell the observers; they print nothing with --quiet."""
        for observer in self._observers:
            tell(observer, text)

    def _notify(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            gc.freeze()  # the objects so far stay for the whole run; searching them delays answers
        if isinstance(event, RunStopping) and self._signals.signal is None:
            self._signals.exit_after_drain(STOPPED if event.error is None else event.error.exit_code)


def exit_code(config: RunConfig, summary: Summary | None) -> int:
    """6 if the run was stopped, 0 if all is done or the failures are within --max-failures, else 3.

    Without a summary the run was stopped before its start.
    """
    if summary is None or summary.stopped:
        return STOPPED
    failed = summary.failed + summary.failed_before + summary.unreadable
    return 0 if config.run.tolerates(failed, summary.total) else PARTLY


def _warn(observers: list[Observer], console: Console, text: str) -> None:
    """Report a problem that does not end the run, even with --quiet, which has no observers."""
    if not observers:
        console.say(text)
    for observer in observers:
        tell(observer, text)


def _observers(
    config: RunConfig, kind: Kind, stack: ExitStack, console: Console, *, as_text: bool
) -> list[Observer]:
    display = config.display
    if display.quiet:
        return []
    if display.log_json:
        return [JsonLog(console.stream)]
    has_bar = has_terminal()
    if (as_text or config.output.output == "-") and stat.S_ISFIFO(os.fstat(1).st_mode):
        has_bar = False  # the reader of the pipe may print to the same terminal and break a bar
    observer = Bar if has_bar else Lines
    shows_failures = not (as_text and on_one_terminal())
    made = observer(
        console.stream, verbose=display.verbose, shows_failures=shows_failures, searching=kind.searching
    )
    return [stack.enter_context(made)]
