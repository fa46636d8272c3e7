"""Trials of a sweep under the real Tune: which are stopped, which are made again, and how many run at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import ray
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from infrec.pipeline.cluster import Cluster, OnValidation, ignored, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import Method, plan_summarise
from infrec.pipeline.report.findings import ALL_USERS
from infrec.pipeline.solvers import Solver
from infrec.pipeline.storage import Location
from infrec.pipeline.study import tuning
from infrec.pipeline.study.bench import Bench, Outcome, paper_search
from infrec.pipeline.study.config import SweepConfig, Trial
from infrec.pipeline.study.placement import Share, room_for
from infrec.pipeline.study.tuning import OnePerBudget, plain, run_trials
from tests.builders import taste_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return taste_dataset(tmp_path_factory.mktemp("tuning") / "dataset", 120, 60, seed=0)


def test_hopeless_trials_are_stopped() -> None:
    """At the second validation the one that is worse than another of its budget is stopped, however the others do."""
    scheduler = OnePerBudget("nDCG@10")
    results = [(5, 0, 9.0), (5, 1, 3.0), (10, 0, 5.0), (10, 1, 8.0), (5, 2, 12.0)]
    stopped = []
    for budget, seed, quality in results:
        ours = Trial(method=Method.DISTILL_CF, budget=budget, seed=seed)
        trial = TuneTrial("a trial", config={"trial": plain(ours)}, stub=True)
        scheduler.on_trial_add(None, trial)
        for validation in (1, 2):
            result = {"validation": validation, "nDCG@10": quality}
            if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                stopped.append((budget, seed, validation))
    assert stopped == [(5, 1, 2)]


def test_lost_trials_are_made_again(
    dataset: Dataset, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of one trial is killed once. That of another is killed every time, which does not go on for ever."""
    monkeypatch.setattr(tuning, "_PAUSE_SECONDS", 0.0)  # no node is lost with them
    deaths = tmp_path / "deaths"

    class Mortal(Bench):  # made here, so that it travels to the trials by value
        def run(self, trial: Trial, on_validation: OnValidation = ignored) -> Outcome:
            before = len(list(deaths.glob(f"{trial.name}*")))
            if trial.method == Method.HEAD_USERS or (trial.method == Method.RANDOM_USERS and not before):
                deaths.mkdir(exist_ok=True)
                (deaths / f"{trial.name}-{before}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().run(trial, on_validation)

    config = SweepConfig(budgets=(5,), methods=(Method.RANDOM_USERS, Method.HEAD_USERS), seeds=1)
    bench = Mortal(dataset, {}, Location.of(tmp_path / "work"), Solver.EXACT, paper_search("AUC"), config.learners)
    trials = list(config.points({}, all_users=dataset.num_training_users))
    outcomes = run_trials(trials, bench, phase="Trials", share=Share(), early_stopping=False, report=silent)
    rows = {trial.method: outcome.rows[0] for trial, outcome in zip(trials, outcomes, strict=True)}
    assert {method: row["status"] for method, row in rows.items()} == {
        ALL_USERS: "done",
        Method.RANDOM_USERS: "done",
        Method.HEAD_USERS: "failed",
    }
    assert rows[Method.HEAD_USERS]["reason"] == "Its process or node was lost 3 times."
    assert len(list(deaths.iterdir())) == 1 + 3


def test_trials_take_the_memory_of_the_largest(dataset: Dataset, cluster: Cluster) -> None:
    """So many at once as fit below a limit, of whatever a node has."""
    config, search = SweepConfig(budgets=(5, 100), methods=(Method.DISTILL_CF, Method.NYSTROM)), paper_search("AUC")
    (node,) = ray.nodes()
    offered = node["Resources"]["memory"]
    plans = [plan_summarise(dataset, trial.config, workers=1) for trial in config.summaries()]
    share, solver = room_for(dataset, config, search, Share(cpus=0.1), memory_limit=None, disk=None)
    assert max(plan.peak for plan in plans) <= share.memory < offered and solver == Solver.EXACT
    for at_once in (1, 3):
        limit = int((at_once + 0.5) * share.memory)
        limited, _ = room_for(dataset, config, search, Share(cpus=0.1), memory_limit=limit, disk=None)
        assert offered // limited.memory == at_once
