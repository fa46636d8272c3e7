"""The output of a job: progress and notes on stderr, results on stdout, one clear sentence when it cannot go on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from infrec.jobs.logs import JsonLog, Log, LogFormat, TextLog
from infrec.pipeline.cluster import Detail, Report, Run, Telemetry, in_ray_session

if TYPE_CHECKING:  # some jobs do not need JAX
    from infrec.pipeline.serving import Evaluation

RESULTS = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
"""The console for stdout. In files and pipes tables are as wide as they need. On a terminal their first column, often a
path, is folded."""
INTERRUPTED = 130
"""The exit code after Ctrl-C."""
HEADLINE_METRICS = ("HR@10", "HR@100", "nDCG@10", "nDCG@100", "PSP@10", "Recall@20", "AUC")


_run: Run
_log: Log


def begin(run: Run, log_format: LogFormat = LogFormat.TEXT) -> None:
    """Start the log of this run, in this format. All that follows belongs to this run."""
    global _run, _log
    _run, _log = run, JsonLog(run) if log_format == LogFormat.JSON else TextLog()


def run_id() -> str:
    """Return the id of the run."""
    return _run.id


def note(message: str) -> None:
    """Write one line to stderr."""
    _log.note(message)


def error(sentence: str, trace: str = "") -> None:
    """Write to stderr why the run cannot go on."""
    _log.error(sentence, trace)


def ended(code: int) -> int:
    """Log the end of the run with its exit code, and return that code."""
    _log.ended(code)
    return code


def result(line: str) -> None:
    """Write one line to stdout."""
    RESULTS.print(line, markup=False, soft_wrap=True)


def number(value: float) -> str:
    """Return a number as tables show it: whole ones without decimals, others with two (from 10 on) or three."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if value == int(value) else f"{value:.{2 if value >= 10 else 3}f}"


def metric_cells(evaluation: Evaluation) -> list[str]:
    """Return the headline metrics of a model, and the seconds that they took, as cells of a table."""
    metrics = [number(evaluation.metrics[name]) for name in HEADLINE_METRICS]
    return [*metrics, f"{evaluation.seconds:.1f}"]


@contextmanager
def progress() -> Iterator[Report]:
    """Yield a `Report` that shows each phase on stderr and, in a Ray session, in Ray's metrics.

    If the block ends without an exception, the metrics record a success.
    """
    telemetry = Telemetry(_run) if in_ray_session() else None
    with _log.stages() as show:

        def report(phase: str, done: int, total: int, detail: Detail = "") -> None:
            show(phase, done, total, detail)
            if telemetry:
                telemetry.report(phase, done, total, detail)

        yield report
    if telemetry:
        telemetry.succeeded()


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout. Its first column is left-aligned, the others are right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # The table's own title would wrap at the table's width
    RESULTS.print(title, style="bold", markup=False, soft_wrap=True)
    RESULTS.print(table)


def show_json(result: Mapping[str, Any]) -> None:
    """Write the result for machines: one JSON object on stdout."""
    sys.stdout.write(json.dumps(result, default=str, ensure_ascii=False) + "\n")
