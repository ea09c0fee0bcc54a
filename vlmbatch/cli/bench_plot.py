"""Draws the results of `vlmbatch bench` as an SVG. matplotlib is imported only when a plot is drawn."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from vlmbatch.commands.bench import Level, Report
from vlmbatch.config.spec import require
from vlmbatch.errors import MissingDependencyError, OutputError
from vlmbatch.observers import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"p50_s": "#2f81d6", "p90_s": "#d1701c", "p99_s": "#a371f7"}
THROUGHPUT = "#2f9e62"
INK = "#4a525c"
SIZE = (7.0, 7.0)
"""Width and height in inches."""


def check_plot(path: str) -> None:
    """Check before the measurement that the plot can be drawn.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ConfigError: the folder of the file does not exist.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError(
            'matplotlib is not installed; install it with: pip install "vlmbatch[plot]", or leave --plot out'
        )
    folder = Path(path).parent
    require(folder.is_dir(), f"--plot {path}: there is no folder {folder}; make it, or name another file")


def plot_report(report: Report, path: str) -> None:
    """Write the plot to this file.

    Raises:
        OutputError: the file cannot be written.
    """
    import matplotlib as mpl

    try:
        with mpl.rc_context(
            {
                "svg.fonttype": "none",  # text stays text
                "text.parse_math": False,  # the name of a model with two $ is no formula
                "font.size": 10,
                "axes.edgecolor": INK,
            }
        ):
            _figure(report).savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise OutputError(f"--plot {path} cannot be written: {error.strerror}; name another file") from error


def _figure(report: Report) -> "Figure":
    from matplotlib.figure import Figure

    levels = [level for level in report.levels if level.answered]
    plot = Figure(figsize=SIZE, layout="constrained")
    above, below = plot.subplots(2, 1, sharex=True)
    _latencies(above, levels)
    _throughput(below, levels, is_open=report.is_open)
    if report.knee is not None:
        _mark(above, below, report)
    below.set_xscale("log", base=2)
    below.set_xticks([level.load for level in levels], [f"{level.load:g}" for level in levels])
    below.minorticks_off()
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
    if report.endpoint is not None:
        title = f"{clean(report.endpoint.model)} under load\n{clean(report.endpoint.url)}"
        plot.suptitle(title)
    return plot


def _latencies(axes: "Axes", levels: list[Level]) -> None:
    in_seconds = max((level.p99_s or 0.0) for level in levels) >= 1
    for name, colour in COLOURS.items():
        values = [(getattr(level, name) or 0.0) * (1 if in_seconds else 1000) for level in levels]
        axes.plot([level.load for level in levels], values, marker="o", color=colour, label=name[:3])
    axes.set_ylabel(f"latency in {'seconds' if in_seconds else 'milliseconds'}")
    axes.legend(title="percentile", frameon=False, loc="upper left")


def _throughput(axes: "Axes", levels: list[Level], *, is_open: bool) -> None:
    loads, rates = [level.load for level in levels], [level.requests_per_s for level in levels]
    axes.plot(loads, rates, marker="o", color=THROUGHPUT, label="answered")
    if is_open:
        offered = [level.offered_per_s or 0.0 for level in levels]
        axes.plot(loads, offered, linestyle=":", color=INK, label="sent")
        axes.legend(frameon=False, loc="upper left")
    axes.set_ylabel("answers per second")
    axes.set_xlabel("requests per second" if is_open else "requests at once")


def _mark(above: "Axes", below: "Axes", report: Report) -> None:
    """Mark the knee with a line through both parts, and name it."""
    best = report.knee
    if best is None:
        return
    for axes in (above, below):
        axes.axvline(best.load, linestyle="--", color=INK, linewidth=1)
    what = f"keeps up with {best.load:g}/s" if report.is_open else f"knee: --concurrency {best.load:g}"
    below.annotate(
        what,
        (best.load, 0),
        xytext=(6, 8),
        textcoords="offset points",
        color=INK,
    )
