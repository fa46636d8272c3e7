"""The figures of a report: quality by budget, noise, cost, and the hyper-parameters of Distill-CF.

Each figure is a function of the findings and the artboard. It returns None if the sweep has nothing for it. Figures are
drawn without pyplot, which keeps state of its own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

from infrec.pipeline.report.coordinates import hyper_parameter_figure
from infrec.pipeline.report.drawing import (
    Artboard,
    budget_axis,
    draw,
    house_style,
    level,
    name_lines,
    name_of,
    panels,
    ring,
    unit_of,
)
from infrec.pipeline.report.findings import Findings, Point


@house_style
def quality_figure(findings: Findings, board: Artboard = Artboard.WIDE) -> Figure | None:
    """Draw test quality by budget: a line for each method, a panel for each learner, and levels for all users.

    One level is the quality that all users reach, the other the target. Return None if no trial without noise is done.
    """
    shown = {learner: curves for learner in findings.learners if (curves := findings.curves(learner))}
    if not shown:
        return None
    column = f"test {findings.select}"
    figure, axes_list = panels(len(shown), board, height=3.7)
    for axes, (learner, curves) in zip(axes_list, shown.items(), strict=True):
        for method, points in curves.items():
            draw(axes, method, [point.budget for point in points], *_moments(points, column))
        axes.set_title(f"{findings.select} of {name_of(learner)} on test{unit_of(findings.select)}")
        axes.margins(y=0.08)
        budget_axis(axes, {point.budget for points in curves.values() for point in points})
        if full := findings.reference(learner):
            reached = full.mean(column)
            level(axes, reached, f"all users: {reached:.2f}")
            wanted = findings.target * reached
            level(axes, wanted, f"{100 * findings.target:g} %: {wanted:.2f}", dashed=True)
        if (recipe := findings.recipe) and recipe.learner == learner:
            ring(axes, recipe.budget, recipe.mean(column), f"{recipe.budget:,} users")
    name_lines(figure, board)
    return figure


@house_style
def noise_figure(findings: Findings, board: Artboard = Artboard.WIDE) -> Figure | None:
    """Draw the fraction of its own quality without noise that a method keeps, by noise rate.

    The figure shows one budget, and all users. Return None if the sweep has one noise rate.
    """
    shown = {learner: curves for learner in findings.learners if (curves := findings.noise_curves(learner))}
    if not shown:
        return None
    figure, axes_list = panels(len(shown), board, height=3.2)
    for axes, (learner, curves) in zip(axes_list, shown.items(), strict=True):
        for method, points in curves.items():
            means, spreads = zip(*(findings.kept(point) or (math.nan, 0) for point in points), strict=True)
            rates = [100 * point.noise for point in points]
            draw(axes, method, rates, [100 * mean for mean in means], [100 * spread for spread in spreads])
        axes.set_title(f"Test {findings.select} that {name_of(learner)} keeps, %")
        axes.set_xlabel("false train interactions, % of the true ones")
        axes.xaxis.set_major_locator(FixedLocator(sorted({100 * p.noise for ps in curves.values() for p in ps})))
    name_lines(figure, board)
    return figure


@house_style
def cost_figure(findings: Findings, board: Artboard = Artboard.WIDE) -> Figure | None:
    """Draw the time to train a learner on a summary and on all users, and the size of both.

    Return None if no trial is done.
    """
    shown = {learner: curves for learner in findings.learners if (curves := findings.curves(learner))}
    if not shown:
        return None
    figure, axes_list = panels(len(shown), board, height=2.9, columns=2)
    quantities = [
        (learner, column, title, unit)
        for learner in shown
        for column, title, unit in (
            ("training_seconds", "Time to train {} (log scale)", "s"),
            ("bytes", "Size as Parquet, for {} (log scale)", "B"),
        )
    ]
    for axes, (learner, column, title, unit) in zip(axes_list, quantities, strict=True):
        for method, points in shown[learner].items():
            # There are no bands, because the scatter of a clock says nothing about seeds
            means = [point.mean(column) for point in points]
            draw(axes, method, [point.budget for point in points], means, [0.0] * len(points))
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(EngFormatter(unit=unit, sep="\N{NO-BREAK SPACE}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_title(title.format(name_of(learner)))
        budget_axis(axes, {point.budget for points in shown[learner].values() for point in points})
        if full := findings.reference(learner):
            level(axes, full.mean(column), "all users")
            axes.margins(y=0.15)
    name_lines(figure, board, columns=2)
    return figure


FIGURES: Mapping[str, Callable[[Findings, Artboard], Figure | None]] = {
    "quality": quality_figure,
    "noise": noise_figure,
    "cost": cost_figure,
    "hyper-parameters": hyper_parameter_figure,
}
"""File name → the function that draws the figure."""


@house_style
def save(figure: Figure, name: str) -> dict[str, bytes]:
    """Return file name → content, as SVG and as PNG. The bytes are the same for the same findings."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png", dpi=200)
    return {f"{name}.svg": svg.getvalue(), f"{name}.png": png.getvalue()}


def _moments(points: Sequence[Point], column: str) -> tuple[list[float], list[float]]:
    return [point.mean(column) for point in points], [point.spread(column) for point in points]
