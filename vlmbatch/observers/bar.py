"""A live bar on a terminal: two lines of at most 80 columns."""

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from vlmbatch.events import Event, RunStarted
from vlmbatch.observers.format import clean, countdown
from vlmbatch.observers.lines import LineObserver
from vlmbatch.observers.meter import DOWN, SEARCHING

WIDEST = 90
REFRESHES_S = 4


class BarConsole(Console):
    """A console that leaves the cursor visible, since a killed run could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing: the cursor is never hidden."""
        return False


class BarObserver(LineObserver):
    """The two lines of a bar, and the messages above it; the base class of bars for different places."""

    def __init__(
        self,
        stream: TextIO,
        *,
        verbose: bool = False,
        shows_failures: bool = True,
        searching: str = SEARCHING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            stream, verbose=verbose, shows_failures=shows_failures, searching=searching, clock=clock
        )
        self._spinner = Spinner("line" if self.console.options.ascii_only else "dots", style="cyan")

    def __rich__(self) -> RenderableType:
        """The two lines with the current values; the second one is empty until the endpoint is found.

        The height never changes: a thread of rich draws, too, and may erase the rows of an earlier height.
        """
        if self.meter.endpoint == SEARCHING:
            row = _row(None, 1)
            row.add_row(self._spinner, Text(clean(self.meter.state)))
            return Group(row, Text())
        return Group(Constrain(self._how_far(), WIDEST), self._how_well())

    def _how_far(self) -> Table:
        meter = self.meter
        row = _row(None, 1, None, None, None)
        colour = "yellow" if meter.endpoint == DOWN else "green"
        bar = ProgressBar(
            total=meter.total,
            completed=meter.done,
            complete_style=colour,
            finished_style=colour,
            pulse_style=colour,
        )
        of = f"/{meter.total}" if meter.total is not None else ""
        share = f"{meter.done * 100 // meter.total:>3}%" if meter.total else ""
        row.add_row(
            self._spinner,
            bar,
            Text(share, "bold"),
            f"{meter.done}{of} images ",
            Text(f"ETA {countdown(meter.eta_s())}", "cyan"),
        )
        return row

    def _how_well(self) -> Text:
        meter = self.meter
        images_s, tokens_s = meter.rates()
        parts = (
            Text(f"{meter.ok} ok", "green"),
            Text(f"{meter.failed} failed", "red" if meter.failed else ""),
            Text(f"{images_s:.1f} images/s", "cyan"),
            Text(f"{tokens_s:.0f} tokens/s", "cyan"),
            Text(meter.state, "bold yellow" if meter.endpoint == DOWN else "green"),
        )
        line = Text("  ").join(parts)
        # set on the text itself, since messages above the bar are printed without wrapping
        return Text.assemble("  ", line, no_wrap=True, overflow="ellipsis")


class Bar(BarObserver):
    """A live bar on a terminal; messages appear above it, and the summary replaces it at the end."""

    def __init__(
        self,
        stream: TextIO,
        *,
        verbose: bool = False,
        shows_failures: bool = True,
        searching: str = SEARCHING,
        shares_stdout: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With `shares_stdout`, lines that the program prints to standard output appear above the bar.

        Without it, standard output does not change, and is free for records.
        """
        super().__init__(
            stream, verbose=verbose, shows_failures=shows_failures, searching=searching, clock=clock
        )
        self._shares_stdout = shares_stdout
        self._live = Live(
            get_renderable=self.__rich__,
            console=self.console,
            transient=True,
            refresh_per_second=REFRESHES_S,
            redirect_stdout=shares_stdout,
        )

    def _make_console(self, stream: TextIO) -> Console:
        # printed lines stay whole, and their brackets are no markup
        return BarConsole(file=stream, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def __enter__(self) -> Self:
        self._live.start()
        self._live.refresh()  # so that rich knows the height before two threads draw
        return self

    def __exit__(self, *exc: object) -> None:
        if self._shares_stdout:
            sys.stdout.flush()  # rich keeps a line without a newline until the stream ends
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Receive an event. Records on the same terminal replace the bar."""
        if isinstance(event, RunStarted) and event.output == "-" and sys.stdout.isatty():
            self._live.stop()
        super().__call__(event)


def _row(*ratios: int | None) -> Table:
    """A table with one row that never wraps; cells with a ratio share the remaining space."""
    row = Table.grid(expand=any(ratios), padding=(0, 1))
    for ratio in ratios:
        row.add_column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    return row
