"""Draws the panels of a claim as one SVG that is readable on white and on black."""

from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "vlmbatch",  # the same plot gives the same file
        "font.family": "sans-serif",
        "font.size": 10,
    }
)

from claim import Claim, Panel, short  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.container import BarContainer  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

# at least 3:1 of contrast to white and to the black of GitHub's dark page (#0d1117)
INK = "#7a828c"
COLOURS = ("#2f81d6", "#d1701c", "#2f9e62", "#a371f7", "#b8860b")
WIDTH, WIDTH_OF_ONE, HEIGHT = 9.4, 6.2, 3.1  # inches


def draw(claim: Claim, folder: Path) -> Path:
    """Write NAME.svg into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{claim.name}.svg"
    figure(claim).savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    return path


def figure(claim: Claim) -> Figure:
    """All panels side by side, with one legend below if the series have names."""
    wide = WIDTH if len(claim.panels) > 1 else WIDTH_OF_ONE
    plot = Figure(figsize=(wide, HEIGHT), layout="constrained")
    for number, panel in enumerate(claim.panels):
        axes = plot.add_subplot(1, len(claim.panels), number + 1)
        if len(panel.series) == 1 and isinstance(panel.places[0], str):
            _ranking(axes, panel)
        elif isinstance(panel.places[0], str):
            _groups(axes, panel)
        else:
            _lines(axes, panel)
        axes.set_title(panel.title, fontsize=11, color=INK)
        axes.set_facecolor("none")
        _plain(axes)
    named = {label: handle for axes in plot.axes for handle, label in zip(*axes.get_legend_handles_labels())}  # noqa: B905
    if named:
        legend = plot.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=len(named), frameon=False
        )
        for text in legend.get_texts():
            text.set_color(INK)
    return plot


def _ranking(axes: Axes, panel: Panel) -> None:
    """One horizontal bar for each place, with its figure; the bars of vlmbatch have their own colour."""
    (series,) = panel.series.values()
    colours = [COLOURS[0] if str(place).startswith("vlmbatch") else INK for place in panel.places]
    bars = axes.barh(
        [str(place) for place in panel.places], [figure or 0 for figure in series], color=colours
    )
    _figures(axes, bars, series)
    axes.invert_yaxis()
    axes.set_xlabel(panel.unit)
    axes.margins(x=0.14)
    axes.set_xticks([])


def _groups(axes: Axes, panel: Panel) -> None:
    """A bar of each series for each place."""
    wide = 0.84 / len(panel.series)
    for number, (name, series) in enumerate(panel.series.items()):
        left = [place + (number - (len(panel.series) - 1) / 2) * wide for place in range(len(panel.places))]
        bars = axes.bar(
            left, [figure or 0 for figure in series], wide * 0.94, label=name, color=COLOURS[number]
        )
        _figures(axes, bars, series)
    axes.set_xticks(range(len(panel.places)), [str(place) for place in panel.places])
    axes.set_ylabel(panel.unit)
    axes.margins(y=0.12)
    axes.set_yticks([])


def _lines(axes: Axes, panel: Panel) -> None:
    """A line of each series over numbers, with dots and figures if they are few."""
    places = [float(place) for place in panel.places]
    few = len(places) <= 8
    for number, (name, series) in enumerate(panel.series.items()):
        known = [(x, y) for x, y in zip(places, series, strict=True) if y is not None]
        across, up = zip(*known, strict=True)
        axes.plot(across, up, marker="o" if few else "", label=name, color=COLOURS[number])
        for x, y in known if few else ():
            _figure(axes, panel, x, y, COLOURS[number])
    if panel.logarithmic_places:
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:,.0f}" for place in places])
        axes.minorticks_off()
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: short(y)))
    axes.margins(0.1, 0.2)
    if not panel.logarithmic:
        axes.set_ylim(0, 1.15 * max(y for series in panel.series.values() for y in series if y is not None))
    axes.set_xlabel(panel.of_places)
    axes.set_ylabel(panel.unit)


def _figure(axes: Axes, panel: Panel, x: float, y: float, colour: str) -> None:
    """The figure of a dot, below it if it is the least of its place, so that figures do not overlap."""
    here = [series[panel.places.index(x)] for series in panel.series.values()]
    least = len(here) > 1 and y == min(other for other in here if other is not None)
    at, side = ((0, -5), "top") if least else ((0, 5), "bottom")
    axes.annotate(
        short(y), (x, y), at, textcoords="offset points", ha="center", va=side, fontsize=8, color=colour
    )


def _figures(axes: Axes, bars: BarContainer, series: tuple[float | None, ...]) -> None:
    labels = ["" if figure is None else short(figure) for figure in series]
    axes.bar_label(bars, labels, padding=2, fontsize=7.5, color=INK)


def _plain(axes: Axes) -> None:
    """Only the two axes as frame, all in the grey that is readable on both pages."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
