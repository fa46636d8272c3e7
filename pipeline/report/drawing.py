"""The drawing of a report's figures: artboards, colours, and the elements that several figures have.

The colours are Okabe and Ito's, which colour-blind people tell apart. Markers and dashes say the same once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from infrec.pipeline.distillation import Method
from infrec.pipeline.report.findings import ALL_USERS
from infrec.pipeline.serving import Learner


class Artboard(Enum):
    """The width that a figure is drawn for, in inches.

    Type that is right on a screen is too small on a phone when it is scaled down.
    """

    WIDE = 7.6
    NARROW = 3.5


class Style(NamedTuple):
    """The name and the look of a method."""

    name: str
    colour: str
    marker: str
    dashes: Any = "-"
    width: float = 1.6


INK, QUIET = "#1a1a1a", "#595959"
_SETTINGS: Any = {
    "axes.edgecolor": "#8c8c8c",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "font.size": 9.5,
    "grid.color": "#e3e3e3",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "infrec",  # the bytes are the same every time
    "text.color": INK,
    "text.parse_math": False,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "ytick.left": False,
}
house_style = matplotlib.rc_context(_SETTINGS)
"""A decorator of every function that draws or saves."""
_STYLES: dict[str, Style] = {
    Method.DISTILL_CF: Style("Distill-CF", "#D55E00", "o", width=2.6),
    Method.NYSTROM: Style("Nyström", "#0072B2", "s", (0, (6, 2))),
    Method.RANDOM_USERS: Style("random users", "#56B4E9", "^"),
    Method.SVP_CF: Style("SVP-CF", "#009E73", "D", (0, (4, 1.5, 1, 1.5))),
    Method.RANDOM_INTERACTIONS: Style("random interactions", "#CC79A7", "v", (0, (3, 1.5))),
    Method.HEAD_USERS: Style("head users", "#E69F00", "P", (0, (1, 1.2))),
    ALL_USERS: Style("all users", INK, "X"),
}
_LEARNERS: dict[str, str] = {Learner.INFINITE_AE: "∞-AE", Learner.EASE: "EASE", Learner.MF: "MF"}
_LINE_HEIGHT = 13.0
"""The height of a label, in points."""


def style_of(method: str) -> Style:
    """Return the style of a method."""
    return _STYLES.get(method, Style(method, QUIET, "."))


def name_of(learner: str) -> str:
    """Return the name of a learner for readers."""
    return _LEARNERS.get(learner, learner)


def unit_of(metric: str) -> str:
    """Return the text that follows the name of a metric. All metrics but AUC are percentages."""
    return "" if metric == "AUC" else ", %"


def panels(rows: int, board: Artboard, *, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, row by row. The narrow artboard has one column. `height` is a panel's, in inches.

    Margins are fixed, so that nothing depends on fonts. They have room for the names that `name_lines` writes.
    """
    left, right, top, bottom, apart = 0.42, 1.6, 0.35, 0.55, 0.95
    if columns > 1:
        left, right, bottom = 0.65, 0.15, 1.0
    if board is Artboard.NARROW:
        rows, columns, right, bottom = rows * columns, 1, 0.15, 1.25
    width, total = board.value, top + bottom + rows * height + (rows - 1) * apart
    figure = Figure(figsize=(width, total), dpi=72)  # a pixel is a point, so measures are in points
    margins = {"left": left / width, "right": 1 - right / width, "top": 1 - top / total, "bottom": bottom / total}
    grid = figure.add_gridspec(rows, columns, hspace=apart / height, wspace=0.25, **margins)
    return figure, [figure.add_subplot(grid[row, column]) for row in range(rows) for column in range(columns)]


def draw(axes: Axes, method: str, x: Sequence[float], mean: Sequence[float], spread: Sequence[float]) -> None:
    """Draw the line of a method. Where there are several seeds, a band is one standard deviation to both sides."""
    style = style_of(method)
    axes.plot(
        x,
        mean,
        color=style.colour,
        linestyle=style.dashes,
        linewidth=style.width,
        marker=style.marker,
        markersize=5.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        label=style.name,
        zorder=4 if method == Method.DISTILL_CF else 3,
    )
    if any(spread):
        low, high = np.subtract(mean, spread), np.add(mean, spread)
        axes.fill_between(
            x, low, high, color=style.colour, alpha=0.22, linewidth=0, label=f"_band of {style.name}", zorder=2
        )


def level(axes: Axes, height: float, text: str, *, dashed: bool = False) -> None:
    """Draw a line across for the quality of all users. The text stands above it, or below it if it is dashed."""
    axes.axhline(height, color=INK, linewidth=1.1, linestyle=(0, (4, 3)) if dashed else "-", zorder=1)
    axes.annotate(
        text,
        (0, height),
        xycoords=("axes fraction", "data"),
        xytext=(2, -3 if dashed else 3),
        textcoords="offset points",
        va="top" if dashed else "bottom",
        fontsize=8.5,
    )


def ring(axes: Axes, x: float, y: float, text: str) -> None:
    """Draw a ring around the point of the recipe."""
    axes.plot([x], [y], "o", markersize=13, markerfacecolor="none", markeredgecolor=INK, label="_recipe", zorder=5)
    axes.annotate(
        text,
        (x, y),
        xytext=(6, -10),
        textcoords="offset points",
        va="top",
        fontweight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        zorder=6,
    )


def budget_axis(axes: Axes, budgets: Iterable[int], *, columns: int = 1) -> None:
    """Show the budgets that were tried, on a log scale. Those that have no room between their neighbours go unnamed."""
    axes.set_xscale("log")
    axes.set_xlabel("users in the summary (log scale)")
    axes.xaxis.set_minor_locator(NullLocator())
    width = axes.get_window_extent().width
    low, high = axes.get_xlim()
    named: list[int] = []
    for budget in sorted(budgets, reverse=True):
        room = width * math.log(named[-1] / budget) / math.log(high / low) if named else math.inf
        if room > 4 + 3 * (len(f"{budget:,}") + len(f"{named[-1]:,}") if named else 0):
            named.append(budget)
    axes.xaxis.set_major_locator(FixedLocator(sorted(named)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def name_lines(figure: Figure, board: Artboard, *, columns: int = 1) -> None:
    """Name every line at its end. On the narrow artboard and where panels stand abreast, a legend below names them."""
    if board is Artboard.WIDE and columns == 1:
        for axes in figure.axes:
            _name_ends(axes)
        return
    lines = {str(line.get_label()): line for axes in figure.axes for line in method_lines(axes)}
    abreast = 2 if board is Artboard.NARROW else 6
    style = {"fontsize": 8, "handlelength": 2.4, "columnspacing": 1}
    figure.legend(list(lines.values()), list(lines), loc="lower left", ncols=abreast, **style)


def _name_ends(axes: Axes) -> None:
    """Name the lines of a panel at their ends. Names that would meet are moved apart."""
    lines = method_lines(axes)
    ends = [(float(np.asarray(line.get_xdata())[-1]), float(np.asarray(line.get_ydata())[-1])) for line in lines]
    places = axes.transData.transform(ends)
    margin = axes.get_window_extent().x1 + 14
    heights = moved_apart([float(height) for _, height in places], _LINE_HEIGHT)
    for line, end, (x, y), height in zip(lines, ends, places, heights, strict=True):
        axes.annotate(
            str(line.get_label()),
            end,
            xytext=(margin - x, height - y),
            textcoords="offset points",
            va="center",
            fontweight="bold" if line.get_linewidth() > 2 else "normal",
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.9, "shrinkA": 1, "shrinkB": 4},
            annotation_clip=False,
        )


def method_lines(axes: Axes) -> list[Line2D]:
    """Return the lines that stand for methods."""
    return [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]  # as legends do


def moved_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return the heights in the same order, no two nearer than `gap`. Each group that is too close keeps its middle."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    groups: list[list[int]] = []
    middles: list[float] = []
    for index in order:
        groups.append([index])
        middles.append(heights[index])
        while len(groups) > 1 and middles[-1] - middles[-2] < gap * (len(groups[-1]) + len(groups[-2])) / 2:
            groups[-2:] = [groups[-2] + groups[-1]]
            middles[-2:] = [sum(heights[member] for member in groups[-1]) / len(groups[-1])]
    placed = [0.0] * len(heights)
    for group, middle in zip(groups, middles, strict=True):
        for rank, index in enumerate(group):
            placed[index] = middle + gap * (rank - (len(group) - 1) / 2)
    return placed
