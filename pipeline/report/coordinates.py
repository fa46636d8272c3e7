"""Parallel coordinates of hyper-parameters: a line for each trial of Distill-CF, coloured by validation quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from infrec.pipeline.distillation import Method
from infrec.pipeline.report.drawing import INK, QUIET, Artboard, house_style, unit_of
from infrec.pipeline.report.findings import HYPER_PARAMETERS, Findings

_TITLES = {
    "temperature": "temperature\nτ",
    "draws": "draws\nT",
    "cardinality": "cardinality\nλ₂",
    "learning_rate": "learning\nrate",
    "sharpness": "sharpness\nκ",
    "lambda": "ridge\nλ",
}
_ON_WHITE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
_NAMED = 6
"""The most values of a coordinate that are named one by one. If it has more, the ends and the middle are named."""


@house_style
def hyper_parameter_figure(findings: Findings, board: Artboard = Artboard.WIDE) -> Figure | None:
    """Draw the trials with the recipe's learner and without noise. A darker line has a higher rank on validation.

    Coordinates stand upright on the wide artboard and lie across on the narrow one. `line_ids` gives the gid of a line.
    Return None if there are fewer than two recipes.
    """
    quality = f"validation {findings.select}"
    trials = [row for row in findings.trials.to_pylist() if _is_drawn(row, findings.learner, quality)]
    varied = [name for name in ("budget", *HYPER_PARAMETERS) if len({row[name] for row in trials}) > 1]
    if not set(varied) - {"budget", "lambda"}:  # validation chooses λ, so λ makes no recipe
        return None
    coordinates = [_Coordinate.of([row[name] for row in trials]) for name in (*varied, quality)]
    titles = [*(_TITLES.get(name, name) for name in varied), f"validation\n{findings.select}{unit_of(findings.select)}"]
    wide = board is Artboard.WIDE
    figure = Figure(figsize=(board.value, 4.0 if wide else 0.75 * len(coordinates)), dpi=72)
    axes = figure.add_axes((0.06, 0.03, 0.89, 0.85) if wide else (0.07, 0.01, 0.86, 0.98))
    axes.set_axis_off()
    places = list(range(len(coordinates)))
    for place, coordinate, title in zip(places, coordinates, titles, strict=True):
        _draw_coordinate(axes, place, coordinate, title, wide=wide)
    ids = line_ids(findings)
    for rank, row in enumerate(sorted(trials, key=lambda row: float(row[quality])), start=1):
        positions = [
            coordinate.position(row[name]) for name, coordinate in zip((*varied, quality), coordinates, strict=True)
        ]
        axes.plot(
            places if wide else positions,
            positions if wide else [-place for place in places],
            color=colormaps["cividis_r"](0.1 + 0.9 * rank / len(trials)),
            linestyle="-" if row["status"] == "done" else (0, (4, 2)),
            linewidth=1.5,
            gid=ids[row["trial"]],
        )
    axes.set_xlim(*((-0.02, places[-1] + 0.02) if wide else (-0.02, 1.02)))
    axes.set_ylim(*((-0.02, 1.02) if wide else (-places[-1] - 0.1, 0.45)))
    return figure


def line_ids(findings: Findings) -> dict[str, str]:
    """Return trial → the gid of its line. The gid is free of the characters that a name may hold."""
    names = dict.fromkeys(findings.trials["trial"].to_pylist())
    return {name: f"trial-{number}" for number, name in enumerate(names)}


@dataclass(frozen=True)
class _Coordinate:
    """The scale that puts values between 0 and 1. It is a log scale if they are positive and of several magnitudes."""

    low: float
    high: float
    log: bool
    named: Sequence[float]

    @classmethod
    def of(cls, given: Sequence[float | None]) -> Self:
        values = sorted({value for value in given if value is not None})
        log = values[0] > 0 and values[-1] / values[0] > 10
        scale = math.log if log else float
        coordinate = cls(scale(values[0]), scale(values[-1]), log, ())
        if len(values) > _NAMED:
            values = [values[0], values[len(values) // 2], values[-1]]
        return cls(coordinate.low, coordinate.high, log, values)

    def position(self, value: float | None) -> float:
        """Return the place of a value. An option that the trial does not have is at NaN: its line is broken there."""
        if value is None:
            return math.nan
        scaled = math.log(value) if self.log else float(value)
        return (scaled - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def _is_drawn(row: Mapping[str, Any], learner: str, quality: str) -> bool:
    judged = row["learner"] == learner and not row["noise"] and row[quality] is not None
    return judged and row["method"] == Method.DISTILL_CF


def _draw_coordinate(axes: Axes, place: int, coordinate: _Coordinate, title: str, *, wide: bool) -> None:
    """Draw a rule with its title and its named values, which stand on white over the lines."""
    ends = ([place, place], [0, 1]) if wide else ([0, 1], [-place, -place])
    axes.plot(*ends, color=INK, linewidth=0.9, zorder=5)
    if wide:
        axes.annotate(
            title, (place, 1), xytext=(0, 10), textcoords="offset points", ha="center", va="bottom", fontsize=8
        )
    else:
        text = title.replace("\n", " ")
        axes.annotate(
            text, (0, -place), xytext=(0, 14), textcoords="offset points", fontweight="bold", bbox=_ON_WHITE, zorder=6
        )
    below: float = -1
    for value in coordinate.named:
        position = coordinate.position(value)
        if position - below < 0.06:  # it would be written over its neighbour
            continue
        below = position
        axes.annotate(
            f"{value:,}" if isinstance(value, int) else f"{value:.4g}",
            (place, position) if wide else (position, -place),
            xytext=(-4, 0) if wide else (0, 7),
            textcoords="offset points",
            ha="right" if wide else "center",
            va="center",
            fontsize=8,
            color=QUIET,
            bbox=_ON_WHITE,
            zorder=6,
        )
