"""The end of a run by signals, and by force if it hangs."""

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
from vlmbatch.system import STOP_SIGNALS, on_signal

GRACE_S = 5.0
"""A run must end within this time after the drain."""
REPORT_S = 5.0
"""The time limit for writing the reports, since their disk may hang."""


class Reports:
    """The reports of a run; each is written once at the end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.open: list[Report] = []
        self._say = say

    def end(self, code: int, error: str | None) -> int:
        """Write all reports; returns the exit code, which is not 0 if a report could not be written."""
        if not self.open:
            return code
        failures: list[str] = []
        writing = threading.Thread(target=self._end, args=(code, error, failures), daemon=True)
        writing.start()
        writing.join(REPORT_S)
        if writing.is_alive():
            failures.append(f"a report could not be written within {REPORT_S:g} s; check its disk")
        for failure in failures:
            self._say(failure)
        return code or (OutputError.exit_code if failures else 0)

    def _end(self, code: int, error: str | None, failures: list[str]) -> None:
        while self.open:
            try:
                self.open.pop(0).end(code, error)
            except OutputError as problem:
                failures.append(clean(str(problem)))


class SignalHandler:
    """Stops the run at the first signal and ends the process at the second, or if the run hangs."""

    def __init__(
        self,
        stop: Callable[[], None],
        reports: Reports,
        console: Console,
        *,
        drain_s: float,
        last_words: str = "",
    ) -> None:
        """`stop` begins the end of the run, which then has `drain_s` + GRACE_S seconds.

        `last_words` are printed before the second signal ends the process.
        """
        self.signal: signal.Signals | None = None
        self._stop = stop
        self._reports = reports
        self._console = console
        self._drain_s = drain_s
        self._last_words = last_words
        self._over = False
        self._code: int | None = None
        self._changed = threading.Condition()  # uses an RLock: a signal may come while it is held

    def install(self) -> None:
        """Handle signals from now on, until the process ends; ignored signals stay ignored (nohup, &).

        The watchdog thread starts here, since the machine may be unable to start a thread later.
        """
        threading.Thread(target=self._watchdog, name="vlmbatch-watchdog", daemon=True).start()
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def finish(self) -> None:
        """Mark the run as ended: a first signal now changes nothing, so that the reports are written."""
        self._over = True

    def exit_after_drain(self, code: int) -> None:
        """End the process after the drain and GRACE_S, even if a thread hangs in a decoder or on a disk."""
        with self._changed:
            if self._code is None:
                self._code = code
                self._changed.notify()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; Python calls this between two steps of the main thread."""
        if self.signal is not None:
            if self._last_words:
                self._console.say_last(self._last_words)
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
        self._reports.end(code, f"the run hung: the process was ended {GRACE_S:g} s after --drain")
        os._exit(code)


Work = Callable[[], Coroutine[object, object, int]]


def run_until_signal(work: Work, console: Console) -> int:
    """Do the work and return its exit code, or that of the signal or error that ended it; print the error.

    The handlers matter for the first process of a container, which no signal ends by default.
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
    received: list[int] = []

    def handle(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        working.cancel()

    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            on_signal(loop, number, handle)
    await asyncio.wait((working,))
    return 128 + received[0] if received else working.result()
