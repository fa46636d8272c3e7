"""The report of a sweep: one HTML file that holds its figures, tables, style and script, and loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from infrec.pipeline.report.coordinates import line_ids
from infrec.pipeline.report.drawing import name_of, style_of
from infrec.pipeline.report.findings import HYPER_PARAMETERS, Findings
from infrec.pipeline.report.sections import sections
from infrec.pipeline.report.wording import SPACE, as_bytes, as_number, as_plain, as_seconds, as_times


@dataclass(frozen=True)
class Column:
    """A column of the table of trials."""

    key: str
    title: str
    show: Callable[[Any], str]
    number: bool = True


def report_html(findings: Findings) -> str:
    """Return the whole page. Everything that comes from the findings is escaped."""
    environment = Environment(
        loader=PackageLoader("infrec.pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = findings.trials.to_pylist()
    columns = [column for column in _columns(findings) if any(row[column.key] is not None for row in rows)]
    return environment.get_template("report.html").render(
        sentence=findings.sentence,
        facts=list(_facts(findings)),
        outcome=_outcome(findings, rows),
        sections=list(sections(findings)),
        columns=columns,
        filters=[
            (column, sorted({row[column.key] for row in rows} - {None}))
            for column in columns
            if column.key in ("method", "learner", "status")
        ],
        rows=rows,
        lines=line_ids(findings),
        made_by={"Dataset": findings.dataset, "Options": findings.config, "Versions": findings.versions},
        as_plain=as_plain,
    )


def _facts(findings: Findings) -> Iterator[tuple[str, str]]:
    """Yield the recipe in numbers: a large figure, and the words below it."""
    point = findings.recipe
    full = findings.reference(point.learner) if point else None
    if point is None or full is None:
        return
    column, speed = f"test {findings.select}", "training_seconds"
    yield f"{point.budget:,}", f"synthetic users instead of {full.budget:,} real ones"
    yield (
        f"{100 * point.mean(column) / full.mean(column):.1f}{SPACE}%",
        f"of the {findings.select} that {name_of(point.learner)} reaches with all users",
    )
    yield as_times(full.mean(speed) / point.mean(speed)), "the speed of training on all users"


def _outcome(findings: Findings, rows: Sequence[Mapping[str, Any]]) -> str:
    trials = {row["trial"]: row["status"] for row in rows}
    words = [f"{len(trials):,} trials in {timedelta(seconds=round(findings.seconds))} h"]
    for status, name in (("stopped", "stopped early"), ("failed", "failed")):
        if count := list(trials.values()).count(status):
            words.append(f"{count:,} {name}")
    return ", ".join(words) + "."


def _columns(findings: Findings) -> Iterator[Column]:
    yield Column("trial", "Trial", str, number=False)
    yield Column("method", "Method", lambda method: style_of(method).name, number=False)
    yield Column("learner", "Learner", name_of, number=False)
    yield Column("budget", "Budget, users", as_number)
    yield Column("noise", "Noise, %", lambda rate: f"{100 * rate:g}")
    yield Column("seed", "Seed", as_number)
    yield Column("status", "Status", str, number=False)
    yield Column("chosen", "Chosen", as_plain, number=False)
    yield Column(f"validation {findings.select}", f"{findings.select}, validation", "{:.3f}".format)
    yield Column(f"test {findings.select}", f"{findings.select}, test", "{:.3f}".format)
    for name in HYPER_PARAMETERS:
        yield Column(name, name.replace("_", " ").capitalize(), as_number)
    yield Column("steps", "Steps", as_number)
    yield Column("seconds", "Made in", as_seconds)
    yield Column("training_seconds", "Trained in", as_seconds)
    yield Column("interactions", "Weights", as_number)
    yield Column("bytes", "Size", as_bytes)
    yield Column("reason", "Reason", str, number=False)
