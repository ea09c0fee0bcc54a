"""The output of `vlmbatch doctor`: for each check a line, or a JSON object."""

import dataclasses
import json
import os
import sys

from vlmbatch.cli.console import Console, printable
from vlmbatch.cli.signals import run_until_signal
from vlmbatch.commands.doctor import Finding, Mark, check_up
from vlmbatch.config import RunConfig
from vlmbatch.events import Event, PreflightDelayed
from vlmbatch.observers import clean
from vlmbatch.observers.meter import SEARCHING

COLOURS: dict[Mark, str] = {"ok": "32", "warning": "33", "wrong": "1;31", "skipped": "2"}
WIDTH = max(map(len, COLOURS))


def show(config: RunConfig, path: str | None, *, as_json: bool) -> int:
    """Print each finding at once; returns the exit code of the first wrong finding, or 0."""
    console = Console(config.display)
    reasons = Reasons(console)
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    async def work() -> int:
        code, shown = 0, None
        async for finding in check_up(config, path, reasons):
            code = code or finding.exit_code
            if as_json:
                print(json.dumps(dataclasses.asdict(finding)), flush=True)
                continue
            if finding.endpoint != shown and finding.endpoint is not None:
                print(f"\n{printable(finding.endpoint)}")
            shown = finding.endpoint
            _print(finding, coloured)
        return code

    return run_until_signal(work, console)


class Reasons:
    """Prints on standard error why an endpoint is not found yet, each reason once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        if isinstance(event, PreflightDelayed) and event.message != self._last:
            self._last = event.message
            self._console.say(clean(f"{SEARCHING}: {event.message}"))


def _print(finding: Finding, coloured: bool) -> None:
    mark = finding.mark.ljust(WIDTH)
    if coloured:
        mark = f"\x1b[{COLOURS[finding.mark]}m{mark}\x1b[0m"
    print(f"{mark}  {finding.check}: {printable(finding.told)}", flush=True)
    if finding.advice:
        print(f"{' ' * WIDTH}  -> {printable(finding.advice)}", flush=True)
