"""The output of `vlmbatch bench`: a table and a conclusion, or a JSON object; and the progress before it."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.live import Live
from rich.text import Text

from vlmbatch.cli.bench_plot import check_plot, plot_report
from vlmbatch.cli.console import Console, printable
from vlmbatch.cli.signals import run_until_signal
from vlmbatch.commands.bench import Bench, Level, Plan, Report
from vlmbatch.commands.bench.loops import MOST_OUTSTANDING
from vlmbatch.commands.bench.results import load_name
from vlmbatch.config import RunConfig
from vlmbatch.events import Event, PreflightDelayed
from vlmbatch.observers import clean
from vlmbatch.observers.bar import BarConsole
from vlmbatch.observers.meter import SEARCHING
from vlmbatch.streams import has_terminal

BUSY_CLIENT = 0.9
"""A client that uses more than this part of a processor core may itself be the limit."""
LATE_CLIENT = 0.25
"""So may a client that was late for more than this part of the time."""
IN_SECONDS = 10.0
"""A table with a latency of this many seconds shows seconds, else milliseconds."""


def show(config: RunConfig, plan: Plan, images: str | None, plot: str | None, *, as_json: bool) -> int:
    """Measure, print the results, also after Ctrl-C or an error, and return the exit code."""
    console = Console(config.display)
    is_quiet = config.display.quiet
    view = _Progress(
        console, is_quiet=is_quiet, has_line=has_terminal() and not (is_quiet or config.display.log_json)
    )
    bench = Bench(config=config, plan=plan, images=images, notify=view.receive)

    async def work() -> int:
        if plot is not None:
            check_plot(plot)
        try:
            with view.line(bench):
                await bench.measure()
        finally:
            await console.wait()  # the line on standard error must be gone before the table comes
            _print(bench.report, console, as_json=as_json)
            if plot is not None and bench.report.levels:
                plot_report(bench.report, plot)
        return 0

    return run_until_signal(work, console)


class _Progress:
    """A line about the current level on a terminal, and the reasons of a wait for the endpoint."""

    def __init__(self, console: Console, *, is_quiet: bool, has_line: bool) -> None:
        self._console = console
        self._is_quiet = is_quiet
        self._has_line = has_line
        self._last = ""

    def receive(self, event: Event) -> None:
        """Print why a wait for the endpoint begins, each reason once."""
        if isinstance(event, PreflightDelayed) and event.left_s and event.message != self._last:
            self._last = event.message
            if not self._is_quiet:
                self._console.say(clean(f"{SEARCHING}: {event.message}"))

    def line(self, bench: Bench) -> AbstractContextManager[object]:
        """Show the line inside the ``with``, if there is a terminal."""
        if not self._has_line:
            return nullcontext()
        return Live(
            get_renderable=_Line(bench),
            console=BarConsole(file=self._console.stream, highlight=False),
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )


class _Line:
    """The line about the current level."""

    def __init__(self, bench: Bench, clock: Callable[[], float] = time.monotonic) -> None:
        self._bench = bench
        self._clock = clock
        self._began = clock()

    def __call__(self) -> Text:
        """The line with the counts at this moment."""
        bench = self._bench
        seconds = self._clock() - self._began
        if bench.load is None:
            return Text(f"{seconds:.0f} s: preparing", overflow="ellipsis", no_wrap=True)
        counts = bench.tally
        failed = sum(counts.failures.values())
        done = len(bench.report.levels)
        text = (
            f"{seconds:.0f} s: level {done + 1} of at most {bench.report.planned}, "
            f"{load_name(bench.load, is_open=bench.plan.is_open)}: {len(counts.latencies_s)} answered"
        )
        text += f", {failed} failed" if failed else ""
        text += f", {counts.refused} refused" if counts.refused else ""
        return Text(text, overflow="ellipsis", no_wrap=True)


def _print(report: Report, console: Console, *, as_json: bool) -> None:
    """Print the results so far; only the notes if there is no answer."""
    if report.endpoint is None or not any(level.answered for level in report.levels):
        for note in report.notes:
            console.say(clean(note))
        return
    if as_json:
        print(json.dumps(as_object(report)), flush=True)
    else:
        print(f"{printable(report.endpoint.model)} at {printable(report.endpoint.url)}\n")
        print("\n".join(table(report.levels, is_open=report.is_open)), flush=True)
        print(f"\n{conclusion(report)}", flush=True)
    for line in (*report.notes, *warnings(report)):
        console.say(clean(line))


def as_object(report: Report) -> dict[str, object]:
    """The results for programs; `knee` is the load of the best level."""
    best = report.knee
    return {
        "endpoint": report.endpoint and report.endpoint.url,
        "backend": report.endpoint and report.endpoint.backend,
        "model": report.endpoint and report.endpoint.model,
        "loop": "open" if report.is_open else "closed",
        "levels": [_rounded(level) for level in report.levels],
        "knee": best and best.load,
        "notes": [*report.notes, *warnings(report)],
    }


def _rounded(level: Level) -> dict[str, object]:
    values = dataclasses.asdict(level)
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def table(levels: Sequence[Level], *, is_open: bool) -> list[str]:
    """The lines of the table: a head, and a row for each level."""
    unit = "s" if any((level.max_s or 0) >= IN_SECONDS for level in levels) else "ms"
    titles = (
        "SENT/S" if is_open else "AT ONCE",
        "ANSWERS/S",
        *(f"{name} {unit}" for name in ("P50", "P90", "P99", "MAX")),
        *("ANSWERED", "FAILED", "REFUSED", "TOKENS/S", "CLIENT CPU"),
    )
    rows = [titles, *(_row(level, unit) for level in levels)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _row(level: Level, unit: str) -> tuple[str, ...]:
    def latency(seconds: float | None) -> str:
        if seconds is None:
            return "-"
        return f"{seconds:.2f}" if unit == "s" else f"{seconds * 1000:.0f}"

    return (
        f"{level.load:g}",
        figure(level.requests_per_s),
        *map(latency, (level.p50_s, level.p90_s, level.p99_s, level.max_s)),
        str(level.answered),
        str(level.failed),
        str(level.refused),
        figure(level.output_tokens_per_s),
        f"{level.client_cpu:.0%}" + (" stopped" if level.is_partial else ""),
    )


def figure(number: float) -> str:
    """A number with three digits: `0.052`, `1.25`, `12.5`, `1250`."""
    for least, digits in ((100, 0), (10, 1), (1, 2)):
        if number >= least:
            return f"{number:.{digits}f}"
    return f"{number:.3f}"


def conclusion(report: Report) -> str:
    """What the results mean, and what to type next."""
    best, levels = report.knee, report.whole
    if len(levels) < min(report.planned, 2):
        return (
            "the measurement ended before the second level was complete; let it run longer to find the knee"
        )
    if report.is_open:
        if best is None:
            return f"the endpoint falls behind at {levels[0].load:g} requests/s; try lower rates with --rate"
        higher = [level.load for level in levels if level.load > best.load]
        more = f", and falls behind at {higher[0]:g}" if higher else "; try higher rates with --rate"
        return f"the endpoint keeps up with {best.load:g} requests/s{more}"
    if best is None:
        return "the endpoint answered no request"
    if len(levels) == 1:
        return "one level shows no knee; leave --levels out to find the best --concurrency"
    load = f"{best.load:g}"
    if best is levels[-1]:
        further = f"{best.load * 2:g},{best.load * 4:g}"
        return (
            f"the throughput still grows at {load} requests at once; run with --concurrency {load}, or "
            f"measure more with --levels {load},{further}"
        )
    top = max(level.requests_per_s for level in levels)
    return (
        f"the knee is at {load_name(best.load, is_open=False)}, with {best.requests_per_s / top:.0%} of the "
        f"best throughput; above it, each answer takes longer; run with --concurrency {load}"
    )


def warnings(report: Report) -> Iterator[str]:
    """What makes the results doubtful: failures, a busy client, a limit that was reached."""
    for level in report.levels:
        load = load_name(level.load, is_open=report.is_open)
        kinds = [f"{number} {kind}" for kind, number in level.failures.items()]
        kinds += [f"{level.refused} refused as too busy"] if level.refused else []
        if kinds:
            yield f"{load}: not answered: {', '.join(kinds)}; the first error: {level.error}"
        if level.client_cpu > BUSY_CLIENT or level.client_late > LATE_CLIENT:
            yield (
                f"{load}: this client used {level.client_cpu:.0%} of a processor core and was late for "
                f"{level.client_late:.0%} of the time, so it may be the limit and not the endpoint; measure "
                "from another machine, or with several clients at once"
            )
        if level.capped:
            yield (
                f"{load}: {MOST_OUTSTANDING} requests were without an answer, so the next requests waited "
                "in this client, and their latency has this wait; set a lower --rate"
            )
