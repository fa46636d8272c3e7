"""Many trials under Ray Tune: several run at once, each in a process of its own, and hopeless ones are stopped early.

The outcome of a trial is in its own file (`Bench`). So a killed sweep needs nothing of Tune's state: it runs again with
all trials, and a trial with a known outcome reports its validations again, to the scheduler as well.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.logger import TBXLoggerCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from infrec.pipeline.cluster import Report, environment
from infrec.pipeline.report.findings import METRICS
from infrec.pipeline.study.bench import Bench, Outcome, failed, stopped
from infrec.pipeline.study.config import Trial
from infrec.pipeline.study.placement import Share

_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the job, which can continue later, and not just Tune's loop
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they write CSV and JSON of what our files have already
}

_GRACE_VALIDATIONS = 2
_REDUCTION = 2
_RETRIES = 2
"""The number of times that a trial is made again after its process or node was lost."""
_PAUSE_SECONDS = 15.0
"""The time before lost trials are made again. Ray takes about as long to notice that a node is gone, and until then it
may begin them there."""


def run_trials(
    trials: Iterable[Trial],
    bench: Bench,
    *,
    phase: str,
    share: Share,
    early_stopping: bool,
    report: Report,
) -> list[Outcome]:
    """Run trials, and return their outcomes in the given order. Trials that are done or stopped are not run again.

    `share` is the resources of one trial. With `early_stopping`, the scheduler stops hopeless trials. Trials that were
    lost are made again after the others. Tune itself does so only if the loss came after the trial's process had begun.
    """
    trials = list({trial.name: trial for trial in trials}.values())
    todo = sorted(trials, key=lambda trial: -trial.cost)
    for trial in todo:
        known = Outcome.read(bench.place_of(trial))
        if known and known.failed:
            bench.place_of(trial).remove()  # it failed in an earlier run: try it again
    for times in range(1, _RETRIES + 2):
        if times > 1:
            time.sleep(_PAUSE_SECONDS)
        if not early_stopping:  # with it, the scheduler is told of the known ones as well
            todo = [trial for trial in todo if not bench.place_of(trial).exists()]
        recorder = _Recorder(bench, phase, len(trials) - len(todo), len(trials), report)
        if todo:
            _tune(todo, bench, phase, share, recorder, early_stopping=early_stopping)
        lost = [trial for trial in trials if not bench.place_of(trial).exists()]
        if not lost:
            break
    for trial in lost:
        failed(trial, bench.learners, f"Its process or node was lost {times} times.").write(bench.place_of(trial))
    outcomes = [Outcome.read(bench.place_of(trial)) for trial in trials]
    return [outcome for outcome in outcomes if outcome]


def _tune(
    trials: Sequence[Trial], bench: Bench, phase: str, share: Share, recorder: _Recorder, *, early_stopping: bool
) -> None:
    """Let Tune run every trial once."""
    taken = {"cpu": share.cpus, "gpu": share.gpus, "memory": share.memory}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_run, bench=bench), taken),
        param_space={"trial": tune.grid_search([plain(trial) for trial in trials])},
        tune_config=tune.TuneConfig(
            scheduler=OnePerBudget(trials[0].select) if early_stopping else None,
            reuse_actors=True,  # imports and compiled functions serve one trial after another
            trial_name_creator=lambda trial: _trial_of(trial).name,
            trial_dirname_creator=lambda trial: _trial_of(trial).name,
        ),
        run_config=tune.RunConfig(
            name=phase.lower(),
            storage_path=str(bench.work / "tune"),
            callbacks=[recorder, TBXLoggerCallback()],
            verbose=0,
        ),
    )
    # Even with verbose=0 Tune talks on stdout, which is for results
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), environment(_TUNE_ENVIRONMENT):
        tuner.fit()


def _run(config: Mapping[str, Any], bench: Bench) -> None:
    """Run a trial in its process, and report its validations to Tune."""
    trial, validations = Trial(**config["trial"]), 0

    def validated(row: Mapping[str, Any]) -> None:
        nonlocal validations
        validations += 1
        tune.report({**row, "validation": validations})

    outcome = bench.run(trial, validated)
    for row in outcome.rows:
        tune.report({f"{row['learner']} {name}": row[name] for name in row if name.startswith(("validation", "test"))})


class OnePerBudget(FIFOScheduler):  # type: ignore[misc]
    """ASHA among the trials of each budget, because more users always reach more. A rung is a validation."""

    def __init__(self, select: str) -> None:
        super().__init__()
        self._by_budget: dict[int, TrialScheduler] = defaultdict(
            lambda: ASHAScheduler(
                time_attr="validation",
                metric=select,
                mode="max",
                grace_period=_GRACE_VALIDATIONS,
                reduction_factor=_REDUCTION,
                max_t=10**6,
            )
        )

    def _of(self, trial: TuneTrial) -> TrialScheduler:
        return self._by_budget[_trial_of(trial).budget]

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        decision: str = self._of(trial).on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)


class _Recorder(tune.Callback):  # type: ignore[misc]
    """Writes the outcome of trials that the scheduler stopped, and reports the progress of the sweep."""

    def __init__(self, bench: Bench, phase: str, done: int, total: int, report: Report) -> None:
        self._bench, self._phase, self._report = bench, phase, report
        self._done, self._total = done, total
        self._validations: dict[str, dict[tuple[int, float | None], dict[str, Any]]] = defaultdict(dict)
        """Trial → step → metrics. A trial that is made again reports the same steps again."""
        if total:
            report(phase, done, total)

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune keeps a copy in its files for its own way to continue, which is not ours."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        row = {name: result[name] for name in ("step", "lambda", "ridge", *METRICS) if name in result}
        if row:
            self._validations[_trial_of(trial).name][row["step"], row.get("ridge")] = row

    def on_trial_complete(self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, **_: Any) -> None:
        ours = _trial_of(trial)
        if Outcome.read(self._bench.place_of(ours)) is None:
            stopped(ours, list(self._validations[ours.name].values())).write(self._bench.place_of(ours))
        self._advance(ours)

    def _advance(self, trial: Trial) -> None:
        self._done += 1
        self._report(self._phase, self._done, self._total, trial.name)


def _trial_of(trial: TuneTrial) -> Trial:
    return Trial(**trial.config["trial"])


def plain(trial: Trial) -> dict[str, Any]:
    """Return a trial as plain values, from which `Trial(**plain)` makes an equal one."""
    return {**asdict(trial), "parameters": dict(trial.parameters)}
