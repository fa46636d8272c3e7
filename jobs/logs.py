"""The log of a run on stderr: bars and sentences for people, or JSON objects for machines, one a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

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
from rich.text import Text

from infrec.pipeline.cluster import Detail, Report, Run

_PROGRESS_SECONDS = 10.0
"""The least time between two lines of one stage, except for its first and last lines."""


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class Log(Protocol):
    """The log of a run: notes, an error, the end, and the progress of its phases."""

    def note(self, message: str) -> None:
        """Write a sentence."""

    def error(self, sentence: str, trace: str = "") -> None:
        """Write why the run cannot go on, and where in the source if the user asked for that."""

    def ended(self, code: int) -> None:
        """Write the end of the run, which is the last entry."""

    def stages(self) -> AbstractContextManager[Report]:
        """Yield a `Report` (see `pipeline.cluster.progress`) that shows how far each phase is."""


class TextLog:
    """The log for people. Each phase is a bar with count, rate, elapsed and remaining time."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def note(self, message: str) -> None:
        self._console.print(message, markup=False, soft_wrap=True)

    def error(self, sentence: str, trace: str = "") -> None:
        self.note(f"{trace}infrec: {sentence}")

    def ended(self, code: int) -> None:
        """Write nothing: the shell has the exit code."""

    @contextmanager
    def stages(self) -> Iterator[Report]:
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
        with Progress(*columns, console=self._console) as display:

            def report(phase: str, done: int, total: int, detail: Detail = "") -> None:
                if isinstance(detail, Mapping):
                    detail = ", ".join(f"{name} {value:.4g}" for name, value in detail.items())
                if phase not in bars:
                    bars[phase] = display.add_task(phase, total=total, detail="")
                display.update(bars[phase], completed=done, total=total, detail=detail)

            yield report


class _Rate(ProgressColumn):
    """Units a second since the phase began."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time or task.elapsed
        return Text(f"{task.completed / elapsed:,.0f}/s" if elapsed else "")


class JsonLog:
    """The log for machines. Every line is a JSON object.

    It has `time` (UTC), `level`, `run_id`, `job`, `event`, and the fields of that event. Log records and warnings of
    libraries come in the same way, as the event `log`.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._began = run, time.monotonic()
        records = logging.Handler(logging.WARNING)
        records.emit = self._record  # type: ignore[method-assign]
        logging.basicConfig(handlers=[records], force=True)
        logging.getLogger("ray").handlers = [records]
        logging.captureWarnings(True)

    def note(self, message: str) -> None:
        self._write("note", message=message)

    def error(self, sentence: str, trace: str = "") -> None:
        self._write("error", level="error", message=sentence, **({"traceback": trace} if trace else {}))

    def ended(self, code: int) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        self._write("end", level="error" if code else "info", exit_code=code, seconds=seconds)

    @contextmanager
    def stages(self) -> Iterator[Report]:
        said: dict[str, tuple[float, int]] = {}

        def report(phase: str, done: int, total: int, detail: Detail = "") -> None:
            last, known = said.get(phase, (float("-inf"), -1))
            now = time.monotonic()
            if now - last < _PROGRESS_SECONDS and (done < total or done == known):
                return
            said[phase] = now, done
            figures = {"figures": dict(detail)} if isinstance(detail, Mapping) else {"detail": detail} if detail else {}
            self._write("progress", stage=phase, done=done, total=total, **figures)

        yield report

    def _record(self, record: logging.LogRecord) -> None:
        self._write("log", level=record.levelname.lower(), logger=record.name, message=record.getMessage())

    def _write(self, event: str, level: str = "info", **body: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"time": now, "level": level, "run_id": self._run.id, "job": self._run.job, "event": event}
        sys.stderr.write(json.dumps({**head, **body}, ensure_ascii=False, default=str) + "\n")
        sys.stderr.flush()
