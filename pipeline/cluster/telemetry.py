"""What a run tells Ray's metrics, for the dashboard and Prometheus: how far it is, how it goes, when it ended well.

The metrics agent of the driver's node has them, as `ray_` and the name, every ten seconds
(RAY_metrics_report_interval_ms), and forgets them twenty seconds after the run. docs/operating.md lists them.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.util.metrics import Gauge

from infrec.pipeline.cluster.progress import Detail

_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray's job server gives the jobs that it runs, their submission id among it."""


@dataclass(frozen=True)
class Run:
    """One run of one job: what its metrics and its log lines are known by."""

    job: str
    id: str

    @classmethod
    def of(cls, job: str, run_id: str | None = None) -> Run:
        """With this id, else with that by which it was submitted to a cluster, else with one of the time and chance."""
        return cls(job, run_id or _submission_id() or f"{job}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}")


class Telemetry:
    """The metrics of a run. To be made inside `ray_session`."""

    def __init__(self, run: Run) -> None:
        tags = {"command": run.job, "run": _ascii(run.id)}  # Prometheus has a `job` of its own

        def gauge(name: str, description: str, *more: str) -> Gauge:
            return Gauge(f"infrec_{name}", description, (*tags, *more)).set_default_tags(tags)

        self._done = gauge("stage_done", "Units (rows, tiles, steps, users) that a stage has done.", "stage")
        self._total = gauge("stage_total", "Units that a stage will have done at its end.", "stage")
        self._figure = gauge("figure", "How a stage goes: loss, validation metrics.", "stage", "figure")
        self._success = gauge("last_success_timestamp_seconds", "When the run ended well.")

    def report(self, phase: str, done: int, total: int, detail: Detail = "") -> None:
        """A `Report`. What a phase says in brackets, such as its λ, is not told: series would be without number."""
        stage = {"stage": _ascii(phase.partition(" (")[0])}
        self._done.set(done, stage)
        self._total.set(total, stage)
        if isinstance(detail, Mapping):
            for name, value in detail.items():
                self._figure.set(value, {**stage, "figure": _ascii(name)})

    def succeeded(self) -> None:
        """What the run was for is published."""
        self._success.set(time.time())


def _ascii(text: str) -> str:
    """Ray takes no other tags."""
    return text.encode("ascii", "backslashreplace").decode()


def _submission_id() -> str | None:
    config: dict[str, Any] = json.loads(os.environ.get(_SUBMITTED, "{}"))
    submission_id: str | None = config.get("metadata", {}).get("job_submission_id")
    return submission_id
