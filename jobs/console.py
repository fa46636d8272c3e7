"""What a job shows: progress and notes on stderr, results on stdout, and one clear sentence when it cannot go on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from pipeline.progress import Report
from pipeline.scoring import Evaluation

NOTES = Console(stderr=True, highlight=False)
RESULTS = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
HEADLINE_METRICS = ("HR@10", "HR@100", "nDCG@10", "nDCG@100", "PSP@10", "Recall@20", "AUC")


def note(message: str) -> None:
    """One line on stderr."""
    NOTES.print(message, markup=False, soft_wrap=True)


def result(line: str) -> None:
    """One line on stdout."""
    RESULTS.print(line, markup=False, soft_wrap=True)


def number(value: float) -> str:
    """A metric or parameter in a table: four significant digits at the least."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if value == int(value) else f"{value:.{2 if value >= 10 else 3}f}"


def metric_cells(evaluation: Evaluation) -> list[str]:
    """The headline metrics of a model and the seconds that they took, as cells of a table."""
    metrics = [number(evaluation.metrics[name]) for name in HEADLINE_METRICS]
    return [*metrics, f"{evaluation.seconds:.1f}"]


@contextmanager
def progress() -> Iterator[Report]:
    """Shows each phase as a bar on stderr with count, rate, elapsed and remaining time, for `pipeline.progress`."""
    bars: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=NOTES) as display:

        def report(phase: str, done: int, total: int, detail: str = "") -> None:
            if phase not in bars:
                bars[phase] = display.add_task(phase, total=total, detail="")
            display.update(bars[phase], completed=done, total=total, detail=detail)

        yield report


class _Rate(ProgressColumn):
    """Units a second since the phase began."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time or task.elapsed
        return Text(f"{task.completed / elapsed:,.0f}/s" if elapsed else "")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout: the first column left-aligned, the others right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    RESULTS.print(table)


def show_json(result: Mapping[str, Any]) -> None:
    """The result for machines: one JSON object on stdout."""
    sys.stdout.write(json.dumps(result, default=str, ensure_ascii=False) + "\n")
