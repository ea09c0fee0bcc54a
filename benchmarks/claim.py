"""The result of a benchmark: figures with their spread, Markdown tables, panels to plot, and one sentence.

This module does not know how figures are measured or drawn.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Series = tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The figures of several rounds: their median, the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """The spread of at least one figure."""
        return cls(median=statistics.median(figures), least=min(figures), greatest=max(figures))

    def __str__(self) -> str:
        if self.least == self.greatest:
            return short(self.median)
        return f"{short(self.median)} ({short(self.least)}..{short(self.greatest)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot: named series over the same places; None if a place was not measured.

    Numeric places make lines over an axis of numbers, places in words make groups of bars.
    """

    title: str
    unit: str
    places: tuple[str, ...] | tuple[float, ...]
    series: dict[str, Series]
    of_places: str = ""
    logarithmic: bool = False
    logarithmic_places: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim. `name` is also the name of its plot, `short` its row in the README."""

    name: str
    title: str
    measured: str
    rounds: int
    ratio: str
    tables: tuple[Table, ...]
    panels: tuple[Panel, ...]
    short: tuple[str, ...] | None = None

    def markdown(self, plots: str | None = None) -> str:
        """The claim as a section; `plots` is the folder of its plot, relative to the page."""
        picture = [f"![{self.title}]({plots}/{self.name}.svg)"] if plots else []
        tables = [table.markdown() for table in self.tables]
        how = f"{self.measured} {_in_turn(self.rounds)}"
        return "\n\n".join([f"## {self.title}", how, f"**{self.ratio}**", *tables, *picture])


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The amount to measure. `quick` proves in seconds that a benchmark runs, and says nothing of speed."""

    rounds: int
    quick: bool


Measure = Callable[[Effort], Sequence[Claim]]


def _in_turn(rounds: int) -> str:
    if rounds == 1:
        return "Measured once."
    return f"{rounds} rounds, in turn: medians, with the least and the greatest in brackets."


def short(figure: float) -> str:
    """A figure with about as many digits as are significant."""
    if figure >= 100 or figure == int(figure):
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 1 else f"{figure:.2f}"


def times(greater: float, lesser: float) -> str:
    """The ratio of two figures, in words."""
    return f"{short(greater / lesser)} times" if lesser else "many times"


def main(measure: Measure, rounds: int) -> int:
    """Measure and print: the command line of every benchmark."""
    module = sys.modules[measure.__module__]
    parser = argparse.ArgumentParser(
        description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help=f"number of measurements of each (default: {rounds})")
    parser.add_argument("--quick", action="store_true", help="tiny counts and one round: a test of the code")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw each claim's SVG into this folder")
    given = parser.parse_args()
    effort = Effort(rounds=given.rounds or (1 if given.quick else rounds), quick=given.quick)
    for claim in measure(effort):
        print(claim.markdown(), flush=True)
        if given.plots:
            from plots import draw  # matplotlib takes a second to load

            draw(claim, given.plots)
    return 0
