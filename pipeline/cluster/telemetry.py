"""The metrics of a run, for the dashboard and Prometheus: how far it is, how it goes, and when it ended well.

Ray's metrics agent on the driver's node gets them every ten seconds (RAY_metrics_report_interval_ms). It puts `ray_`
before their names, and forgets them twenty seconds after the run. docs/operating.md lists them.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infrec.pipeline.cluster.progress import Detail

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable in which Ray's job server tells the jobs that it runs, among other things, their submission id."""


@dataclass(frozen=True)
class Run:
    """One run of one job. Its metrics and its log lines carry these two names."""

    job: str
    id: str

    @classmethod
    def of(cls, job: str, run_id: str | None = None) -> Run:
        """Return a run of this job with the id `run_id`.

        Where that is None, the id is that of the job's submission to a cluster; if there was none, it is made of the
        job, the time and a random number.
        """
        return cls(job, run_id or _submission_id() or f"{job}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}")


class Telemetry:
    """The metrics of a run. It must be made inside `ray_session`."""

    def __init__(self, run: Run) -> None:
        from ray.util.metrics import Gauge

        tags = {"command": run.job, "run": _ascii(run.id)}  # Prometheus has its own `job`

        def gauge(name: str, description: str, *more: str) -> Gauge:
            return Gauge(f"infrec_{name}", description, (*tags, *more)).set_default_tags(tags)

        self._done = gauge("stage_done", "Units (rows, tiles, steps, users) that a stage has done.", "stage")
        self._total = gauge("stage_total", "Units that a stage will have done at its end.", "stage")
        self._figure = gauge("figure", "How a stage goes: loss, validation metrics.", "stage", "figure")
        self._success = gauge("last_success_timestamp_seconds", "When the run ended well.")

    def report(self, phase: str, done: int, total: int, detail: Detail = "") -> None:
        """Record how far a phase is, and how it goes. This method is a `Report`.

        Text in brackets in the name of a phase, such as its λ, is left out: it would make endlessly many series.
        """
        stage = {"stage": _ascii(phase.partition(" (")[0])}
        self._done.set(done, stage)
        self._total.set(total, stage)
        if isinstance(detail, Mapping):
            for name, value in detail.items():
                self._figure.set(value, {**stage, "figure": _ascii(name)})

    def succeeded(self) -> None:
        """Record that the run has published its result."""
        self._success.set(time.time())


def _ascii(text: str) -> str:
    """Return the text with all other characters escaped, as Ray takes only ASCII tags."""
    return text.encode("ascii", "backslashreplace").decode()


def _submission_id() -> str | None:
    """Return the id under which this job was submitted to a cluster, or None."""
    config: dict[str, Any] = json.loads(os.environ.get(_SUBMITTED, "{}"))
    submission_id: str | None = config.get("metadata", {}).get("job_submission_id")
    return submission_id
