"""How a run is made to end: by signals, and by force where it does not end by itself."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType

from vlmbatch.aio import Unawaited
from vlmbatch.cli.console import Console
from vlmbatch.cli.reports import Report
from vlmbatch.errors import OutputError, VlmbatchError, resource_errors
from vlmbatch.observers import clean

GRACE_S = 5.0
"""So long after the drain a run has to be over."""
REPORT_S = 5.0
"""So long may it take to write the reports, whose disk may hang."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Reports:
    """The reports of a run, each of which is told once how it ended."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.open: list[Report] = []
        self._say = say

    def end(self, code: int, told: str | None) -> int:
        """Write them all; returns the code, which is no 0 where one could not be written."""
        if not self.open:
            return code
        failures: list[str] = []
        writing = threading.Thread(target=self._end, args=(code, told, failures), daemon=True)
        writing.start()
        writing.join(REPORT_S)
        if writing.is_alive():
            failures.append(f"a report is not written after {REPORT_S:g} s; does its disk hang?")
        for failure in failures:
            self._say(failure)
        return code or (OutputError.exit_code if failures else 0)

    def _end(self, code: int, told: str | None, failures: list[str]) -> None:
        while self.open:
            try:
                self.open.pop(0).end(code, told)
            except OutputError as error:
                failures.append(clean(str(error)))


class SignalHandler:
    """Lets the first signal stop the run and the second end the process, which ends in any case in time."""

    def __init__(self, stop: Callable[[], None], reports: Reports, *, drain_s: float) -> None:
        """`stop` ends the run politely; from then on it has `drain_s` seconds and a few more."""
        self.signal: signal.Signals | None = None
        self._stop = stop
        self._reports = reports
        self._drain_s = drain_s
        self._over = False
        self._code: int | None = None
        self._changed = threading.Condition()  # of an RLock: a signal may come while it is held

    def install(self) -> None:
        """Take signals from now on, until the process ends; those that are ignored stay so (nohup, &).

        The guard is started here, since no thread may be to be had when it is needed.
        """
        threading.Thread(target=self._watchdog, name="vlmbatch-watchdog", daemon=True).start()
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def finish(self) -> None:
        """The run has ended: what is left to write is written, whatever signals come now but a second one."""
        self._over = True

    def exit_after_drain(self, code: int) -> None:
        """End the process though a thread hangs, in a decoder or on a disk, when the drain is long over."""
        with self._changed:
            if self._code is None:
                self._code = code
                self._changed.notify()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        """Runs between two steps of the main thread, whatever that is doing."""
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        if self._over:
            return
        self._stop()
        self.exit_after_drain(128 + number)

    def _watchdog(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._code is not None)
            code = self._code or 0
        time.sleep(self._drain_s + GRACE_S)
        self._reports.end(code, f"something hung: the process was ended {GRACE_S:g} s after --drain")
        os._exit(code)


Work = Callable[[], Coroutine[object, object, int]]


def run_until_signal(work: Work, console: Console) -> int:
    """Do the work, and return its exit code, or that of the signal or error that ended it, which is told.

    Signals are heard also where this is the first process of a container, which no signal ends by itself.
    """
    try:
        with resource_errors():
            return asyncio.run(_with_signals(work))
    except VlmbatchError as error:
        console.say("\n".join(map(clean, str(error).splitlines())))
        return error.exit_code
    finally:
        console.close()


async def _with_signals(work: Work) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(Unawaited())
    working = asyncio.ensure_future(work())
    heard: list[int] = []

    def hear(number: int) -> None:
        if heard:
            os._exit(128 + number)
        heard.append(number)
        working.cancel()

    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, hear, number)
    await asyncio.wait((working,))
    return 128 + heard[0] if heard else working.result()
