"""The figures of a report with their words and numbers, also for readers to whom the drawing is not enough."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from infrec.pipeline.report.drawing import Artboard, name_of, style_of, unit_of
from infrec.pipeline.report.figures import FIGURES, save
from infrec.pipeline.report.findings import Findings, Point
from infrec.pipeline.report.wording import SPACE, as_bytes, as_number, as_seconds


@dataclass(frozen=True)
class Cell:
    """A number, and a second one below it."""

    text: str
    detail: str


Row = tuple[str, Sequence[Cell | None]]
"""A title and its cells. A single cell stands for all columns."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of a figure as a table: a column for each line, a row for each place on the axis."""

    caption: str
    axis: str
    columns: Sequence[str]
    groups: Mapping[str, Sequence[Row]]
    """Name of a learner → its rows."""


@dataclass(frozen=True)
class Words:
    """The text beside a figure."""

    title: str
    caption: str
    description: str
    """A description for those who do not see the figure."""
    numbers: Numbers | None = None


@dataclass(frozen=True)
class Section:
    """A section of the page: a figure with its words."""

    name: str
    words: Words
    drawings: Mapping[str, Markup]
    """Artboard → SVG."""


def sections(findings: Findings) -> Iterator[Section]:
    """Yield the sections for which the sweep has something."""
    for name, figure in FIGURES.items():
        drawings = {}
        for board in Artboard:
            if drawn := figure(findings, board):
                label = f"{name}-{board.name.lower()}"
                drawings[board.name.lower()] = _inline(save(drawn, label)[f"{label}.svg"], label)
        if drawings:
            yield Section(name, _WORDS[name](findings), drawings)


def _inline(svg: bytes, label: str) -> Markup:
    """Return a drawing for use in a page, where ids of several drawings must differ. Matplotlib escapes its text."""
    text = svg.decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return Markup(re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{label}-", text))


def _quality(findings: Findings) -> Words:
    column, unit = f"test {findings.select}", unit_of(findings.select)
    caption = (
        f"{findings.select} on the test part{unit}, of {_learners(findings)} trained on summaries. {_bands(findings)}"
    )
    if any(findings.reference(learner) for learner in findings.learners):
        caption += f" Lines across: trained on all users, and {100 * findings.target:g}{SPACE}% of that."
    if findings.recipe:
        caption += " The ring marks the recipe."

    def cell(point: Point) -> Cell:
        share = findings.share(point)
        return Cell(
            _with_spread(point.mean(column), point.spread(column), point, 2),
            f"{100 * share:.1f}{SPACE}%" if share else "",
        )

    numbers = _by_budget(findings, cell, f"{findings.select} on test{unit}; below, as a share of what all users reach")
    return Words("Quality by budget", caption, _of_lines(findings, f"{findings.select} on test by budget"), numbers)


def _noise(findings: Findings) -> Words:
    curves = {learner: findings.noise_curves(learner) for learner in findings.learners}
    rates = sorted({point.noise for found in curves.values() for points in found.values() for point in points})
    methods = _methods(curves)
    groups: dict[str, list[Row]] = {}
    for learner, found in curves.items():
        cells = {(m, point.noise): _kept_cell(findings, point) for m, points in found.items() for point in points}
        groups[name_of(learner)] = [
            (f"{100 * rate:g}{SPACE}%", [cells.get((method, rate)) for method in methods]) for rate in rates
        ]
    budget = f"{findings.noise_budget:,}" if findings.noise_budget else "so many"
    caption = (
        f"The share of its own {findings.select} that {_learners(findings)} keeps on the test part when false "
        f"interactions are mixed into the train part: on summaries of {budget} users, and on all users. "
        f"{_bands(findings)}"
    )
    below = f"Kept, %; below, {findings.select} on test{unit_of(findings.select)}"
    numbers = Numbers(below, "Noise", [style_of(method).name for method in methods], groups)
    return Words("Noise", caption, _of_lines(findings, f"share of {findings.select} kept by noise rate"), numbers)


def _cost(findings: Findings) -> Words:
    caption = "Hyper-parameters are known; what it takes to make a summary is in the table of trials."
    point = findings.recipe
    full = findings.reference(point.learner) if point else None
    if point and full:
        caption = (
            f"{name_of(point.learner)} trains on {point.budget:,} synthetic users in "
            f"{as_seconds(point.mean('training_seconds'))}, on all {full.budget:,} users in "
            f"{as_seconds(full.mean('training_seconds'))}. As Parquet these are {as_bytes(point.mean('bytes'))} "
            f"({as_number(round(point.mean('interactions')))} weights) and {as_bytes(full.mean('bytes'))} "
            f"({as_number(round(full.mean('interactions')))} interactions). {caption}"
        )

    def cell(point: Point) -> Cell:
        return Cell(as_seconds(point.mean("training_seconds")), as_bytes(point.mean("bytes")))

    numbers = _by_budget(findings, cell, "Training time; below, size as Parquet")
    return Words("Cost", caption, _of_lines(findings, "training time and size by budget"), numbers)


def _hyper_parameters(findings: Findings) -> Words:
    return Words(
        "Hyper-parameters",
        "A line for each trial of Distill-CF, from its options to its quality on validation: the darker, the better. "
        "Dashed ones were stopped early. Lines follow the filter of the table of trials.",
        "Parallel coordinates; the table of trials has their numbers.",
    )


_WORDS: Mapping[str, Callable[[Findings], Words]] = {
    "quality": _quality,
    "noise": _noise,
    "cost": _cost,
    "hyper-parameters": _hyper_parameters,
}


def _by_budget(findings: Findings, cell: Callable[[Point], Cell], caption: str) -> Numbers:
    """Return the numbers with a column for each method. The reference has a row of its own."""
    curves = {learner: findings.curves(learner) for learner in findings.learners}
    methods = _methods(curves)
    groups: dict[str, list[Row]] = {}
    for learner, found in curves.items():
        points = {(method, point.budget): point for method, line in found.items() for point in line}
        rows = groups[name_of(learner)] = []
        for budget in sorted({budget for _, budget in points}):
            here = [points.get((method, budget)) for method in methods]
            rows.append((f"{budget:,} users", [cell(point) if point else None for point in here]))
        if full := findings.reference(learner):
            rows.append((f"all {full.budget:,} users", [cell(full)]))
    return Numbers(caption, "Budget", [style_of(method).name for method in methods], groups)


def _kept_cell(findings: Findings, point: Point) -> Cell | None:
    kept = findings.kept(point)
    if kept is None:
        return None
    mean, spread = kept
    return Cell(
        _with_spread(100 * mean, 100 * spread, point, 1),
        _with_spread(point.mean(f"test {findings.select}"), point.spread(f"test {findings.select}"), point, 2),
    )


def _with_spread(mean: float, spread: float, point: Point, digits: int) -> str:
    several = len(point.trials) > 1
    return f"{mean:.{digits}f}" + (f"{SPACE}±{SPACE}{spread:.{digits}f}" if several else "")


def _methods(curves: Mapping[str, Mapping[str, Sequence[Point]]]) -> list[str]:
    return list(dict.fromkeys(method for found in curves.values() for method in found))


def _learners(findings: Findings) -> str:
    return " or ".join(name_of(learner) for learner in findings.learners)


def _bands(findings: Findings) -> str:
    if all(len(point.trials) == 1 for point in findings.points):
        return "One seed."
    return "Means over seeds; bands are one standard deviation to both sides."


def _of_lines(findings: Findings, what: str) -> str:
    methods = _methods({learner: findings.curves(learner) for learner in findings.learners})
    names = ", ".join(style_of(method).name for method in methods)
    return f"Line chart: {what}, for {names}. The table below has its numbers."
