"""A sweep, from budgets to a report. It searches, tests the chosen recipes, and says which budget is enough.

sweep/  report.html, figures/*.svg and *.png, trials.parquet, history.parquet,
        summary/ (the recommended one), tensorboard/
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infrec.pipeline.cluster import Report, silent
from infrec.pipeline.data import Dataset, PerturbConfig, perturb_dataset
from infrec.pipeline.distillation import check_budget
from infrec.pipeline.report.drawing import Artboard
from infrec.pipeline.report.figures import FIGURES, save
from infrec.pipeline.report.findings import ALL_USERS, TRIALS_SCHEMA, Findings
from infrec.pipeline.report.page import report_html
from infrec.pipeline.storage import Artefact, ArtefactWriter, FileRecord, InputError, Kind, Location
from infrec.pipeline.study.bench import Bench, Outcome, paper_search
from infrec.pipeline.study.config import SweepConfig, Trial
from infrec.pipeline.study.placement import Share, room_for
from infrec.pipeline.study.tuning import run_trials

TRIALS = "trials.parquet"
HISTORY = "history.parquet"
REPORT = "report.html"
SUMMARY = "summary"
FIGURES_FOLDER = "figures"
_PACKAGES = ("ray", "jax", "numpy", "scipy", "pyarrow")


class EveryTrialFailed(Exception):
    """There is nothing to report, because every trial failed. The message gives the first trial's reason."""


def sweep(
    dataset: Dataset,
    writer: ArtefactWriter,
    config: SweepConfig,
    share: Share,
    *,
    memory_limit: int | None = None,
    report: Report = silent,
) -> tuple[Artefact, Findings]:
    """Run all trials of a sweep, and publish its report. The caller runs this inside `ray_session`.

    If the writer's staging directory has trials, the sweep continues from them. `memory_limit` is in bytes, for all
    trials on a node. Raises `InputError` if a budget is above the number of training users, `DoesNotFit` if no node has
    room for a trial, and `EveryTrialFailed`.
    """
    started = time.perf_counter()
    check_budgets(config, dataset)
    search = paper_search(config.select)
    share, solver = room_for(dataset, config, search, share, memory_limit=memory_limit, disk=writer.room())
    noisy = _noisy_datasets(dataset, writer.work, config, report)
    bench = Bench(
        dataset=dataset.shared(),
        noisy={key: made.shared() for key, made in noisy},
        work=writer.work,
        solver=solver,
        search=search,
        learners=config.learners,
    )
    shared: dict[str, Any] = {"bench": bench, "share": share, "report": report}
    searched = run_trials(config.candidates(), phase="Search", early_stopping=True, **shared)
    points = list(config.points(_recipes(config, searched), all_users=dataset.num_training_users))
    tested = run_trials(points, phase="Trials", early_stopping=False, **shared)
    findings = Findings(
        trials=_table([*searched, *tested]),
        history=_history([*searched, *tested]),
        select=config.select,
        target=config.target,
        dataset=_described(dataset),
        config=config.described,
        versions={"Python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        seconds=time.perf_counter() - started,
    )
    _refuse_failure(findings)
    return _published(findings, bench, writer), findings


def check_budgets(config: SweepConfig, dataset: Dataset) -> None:
    """Raise `InputError` if a budget is above the number of training users."""
    most, largest = dataset.num_training_users, max(config.budgets)
    if largest > most:
        raise InputError(
            f"The budgets must lie in 1 … {most:,}, the number of training users; the largest is {largest:,}.",
            "budgets",
        )
    check_budget(largest, dataset)


def _noisy_datasets(
    dataset: Dataset, work: Location, config: SweepConfig, report: Report
) -> Iterable[tuple[tuple[float, int], Dataset]]:
    for rate in config.noise:
        for seed in config.all_seeds if rate else ():
            place = work / "noisy" / f"{rate:g}-seed-{seed}"
            if place.exists():
                yield (rate, seed), Dataset.open(place)
                continue
            with ArtefactWriter(place, Kind.DATASET, purpose={}) as writer:
                yield (
                    (rate, seed),
                    perturb_dataset(dataset, writer, PerturbConfig(noise=rate, seed=seed), report=report),
                )


def _recipes(config: SweepConfig, searched: Iterable[Outcome]) -> dict[int, Mapping[str, Any]]:
    """Return budget → the parameters that did best on validation."""
    quality = {
        row["trial"]: row[f"validation {config.select}"]
        for outcome in searched
        for row in outcome.rows[:1]  # the first learner decides
        if row["status"] == "done"
    }
    best: dict[int, Trial] = {}
    for trial in config.candidates():
        known = best.get(trial.budget)
        if trial.name in quality and (known is None or quality[trial.name] > quality[known.name]):
            best[trial.budget] = trial
    return {budget: trial.parameters for budget, trial in best.items()}


def _table(outcomes: Iterable[Outcome]) -> pa.Table:
    """Return the table of trials, as TRIALS_SCHEMA says. A trial that was searched and then tested has its last row."""
    rows = {(row["trial"], row["learner"]): row for outcome in outcomes for row in outcome.rows}
    return pa.Table.from_pylist(list(rows.values()), schema=TRIALS_SCHEMA)


def _history(outcomes: Iterable[Outcome]) -> pa.Table:
    """Return the validations of all trials. A trial that was searched and then tested has them once."""
    rows = {
        (row["trial"], row.get("step"), row["lambda"], row.get("ridge")): row
        for outcome in outcomes
        for row in outcome.history
    }
    return pa.Table.from_pylist(list(rows.values()))


def _refuse_failure(findings: Findings) -> None:
    summaries = findings.trials.filter(pc.not_equal(findings.trials["method"], ALL_USERS))
    if pc.all(pc.equal(summaries["status"], "failed")).as_py():
        raise EveryTrialFailed(f"Every trial failed, the first one so: {summaries['reason'][0]}")


def _described(dataset: Dataset) -> dict[str, Any]:
    counts = dataset.manifest.counts
    return {
        "dataset": str(dataset.artefact.location),
        "users": dataset.num_users,
        "training users": dataset.num_training_users,
        "items": dataset.num_items,
        "train interactions": counts["train"],
        "fingerprint": dataset.manifest.fingerprint(),
    }


def _published(findings: Findings, bench: Bench, writer: ArtefactWriter) -> Artefact:
    files: dict[str, FileRecord] = {
        TRIALS: writer.write_table(TRIALS, findings.trials),
        HISTORY: writer.write_table(HISTORY, findings.history),
    }
    for name, content in _pages(findings):
        files[name] = writer.write(name, content)
    for name, source in [*_recommended(findings, bench), *_tensorboard(bench.work)]:
        files[name] = writer.write(name, source.read())
    return writer.publish(
        config=findings.config,
        inputs={"dataset": bench.dataset.manifest.fingerprint()},
        counts={"trials": len(findings.trials), "sentence": findings.sentence},
        files=files,
    )


def _pages(findings: Findings) -> Iterable[tuple[str, bytes]]:
    """Yield the report, and each figure as a file of its own."""
    yield REPORT, report_html(findings).encode()
    for name, draw in FIGURES.items():
        figure = draw(findings, Artboard.WIDE)
        if figure:
            for file, content in save(figure, name).items():
                yield f"{FIGURES_FOLDER}/{file}", content


def _recommended(findings: Findings, bench: Bench) -> Iterable[tuple[str, Location]]:
    """Yield the files of the recipe's summary with the first seed."""
    if findings.recipe:
        name = findings.recipe.trials[0]["trial"]
        summary = bench.work / "summaries" / name
        for file in summary.files():
            yield f"{SUMMARY}/{file.name}", file


def _tensorboard(work: Location) -> Iterable[tuple[str, Location]]:
    """Yield the files that Tune wrote for TensorBoard, by trial. A trial that was killed and made again has several."""
    for file in (work / "tune").files():
        if "tfevents" in file.name:
            yield f"tensorboard/{file.parent.name}/{file.name}", file
