"""One run in front of a person: its signals, its progress and its exit code."""

import asyncio
import logging
import os
import resource
import signal
import stat
import sys
import threading
from contextlib import ExitStack, suppress
from functools import partial

from vlmbatch.batch import Batch
from vlmbatch.cli.reports import Report, open_reports
from vlmbatch.config import RunConfig
from vlmbatch.errors import LockedError, OutputClosed, OutputError, VlmbatchError
from vlmbatch.events import Event, Notice, RunStopping
from vlmbatch.progress import Bar, JsonLog, Lines, clean, duration, summary_line
from vlmbatch.protocols import Observer
from vlmbatch.records import Summary

BUG = 1
PARTLY = 3
STOPPED = 6
DESCRIPTORS = 10_240
"""More than 4096 connections, the most there can be, ever need."""
GRACE_S = 5.0
"""So long after the drain a run has to be over."""
REPORT_S = 2.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(config: RunConfig) -> int:
    """Run, tell how it goes on standard error and in the reports, and return the exit code."""
    reports: list[Report] = []
    code, told = BUG, "a bug in vlmbatch; standard error shows where"
    try:
        with ExitStack() as stack:
            code = _run(config, stack, reports)
            told = ""
    except OutputClosed as error:
        code, told = error.exit_code, ""
    except VlmbatchError as error:
        code, told = error.exit_code, "\n".join(map(clean, str(error).splitlines()))
        if isinstance(error, LockedError):
            reports.clear()  # their files belong to the run that holds the lock
        if not (isinstance(error, LockedError) and config.display.quiet):
            tell(config, told)
    finally:
        code = _end(reports, config, code, told or None)
    return code


def _end(reports: list[Report], config: RunConfig, code: int, told: str | None) -> int:
    """Tell each report once how the run ended; returns the code, which is no 0 where one is not written."""
    while reports:
        try:
            reports.pop(0).end(code, told)
        except OutputError as error:
            tell(config, clean(str(error)))
            code = code or error.exit_code
    return code


def _run(config: RunConfig, stack: ExitStack, reports: list[Report]) -> int:
    if config.display.dry_run:
        from vlmbatch.cli.dry_run import tell_plan

        tell_plan(config)
        return 0
    _allow_descriptors()
    logging.raiseExceptions = False  # a library that cannot log must not write a traceback about that
    observers = _observers(config, stack)
    reports.extend(open_reports(config, lambda text: _tell_all(config, observers, text)))
    return asyncio.run(Session(config, [*observers, *reports], reports).run())


def _allow_descriptors() -> None:
    """Take as many descriptors as this process may have: a connection needs one, and so does a file."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, DESCRIPTORS)
    with suppress(OSError, ValueError):  # macOS has a bound of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, enough), most))


def tell(config: RunConfig, text: str) -> None:
    """Say it on standard error; where nobody can hear it, the exit code still tells."""
    with suppress(OSError):
        if config.display.log_json:
            JsonLog(sys.stderr)(Notice(message=text))
        else:
            print("vlmbatch:", text, file=sys.stderr, flush=True)


class Session:
    """One run and the signals that reach it."""

    def __init__(self, config: RunConfig, observers: list[Observer], reports: list[Report]) -> None:
        """`reports` are ended here only where the process has to be."""
        self._config = config
        self._reports = reports
        self._batch = Batch(config, [self._hear, *observers], stdout=True)
        self._started = False
        self._signal: signal.Signals | None = None

    async def run(self) -> int:
        """The exit code; 128 and the signal's number when one ended the run."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell that starts it with &
                loop.add_signal_handler(number, partial(self._on_signal, number))
        async for _ in self._batch:
            pass
        if self._signal is not None:
            return 128 + self._signal
        summary = self._batch.summary
        code = exit_code(self._config, summary)
        if code == PARTLY and summary is not None and self._config.display.quiet:
            tell(self._config, summary_line(summary))
        return code

    def _hear(self, event: Event) -> None:
        self._started = True
        if isinstance(event, RunStopping) and self._signal is None:
            self._leave_in_time(STOPPED if event.error is None else event.error.exit_code)

    def _on_signal(self, number: signal.Signals) -> None:
        """The first lets what is in flight finish; the second ends at once. Records are whole either way."""
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        self._leave_in_time(128 + number)
        if self._started and not self._config.display.quiet:
            within = f"for up to {duration(self._config.run.drain)}"
            tell(self._config, f"stopping: waiting {within} for the images in flight; again to stop at once")
        self._batch.stop()

    def _leave_in_time(self, code: int) -> None:
        """End the process though a thread hangs, in a decoder or on a disk, when the drain is long over."""
        timer = threading.Timer(self._config.run.drain + GRACE_S, self._exit, (code,))
        timer.daemon = True
        timer.start()

    def _exit(self, code: int) -> None:
        """End the process now; its reports have a moment, since it may be their disk that hangs."""
        told = f"something hung: the process ended {GRACE_S:g} s after --drain"
        ending = threading.Thread(target=_end, args=(self._reports, self._config, code, told), daemon=True)
        ending.start()
        ending.join(REPORT_S)
        os._exit(code)


def exit_code(config: RunConfig, summary: Summary | None) -> int:
    """6 when the run was stopped, 0 when all is done or failures are within --max-failures, else 3.

    Without a summary it was stopped before it had started.
    """
    if summary is None or summary.stopped:
        return STOPPED
    failed = summary.failed + summary.failed_before + summary.unreadable
    return 0 if config.run.tolerates(failed, summary.total) else PARTLY


def _tell_all(config: RunConfig, observers: list[Observer], text: str) -> None:
    """Tell of trouble that does not end the run; also with --quiet, where nobody observes."""
    if not observers:
        tell(config, text)
    for observer in observers:
        observer(Notice(message=text))


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
