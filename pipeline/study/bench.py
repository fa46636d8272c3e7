"""One trial in one process: it makes the summary, trains the learners on it, judges them, and writes its outcome.

Everything that a trial makes is in files under names of its own, which are whole or absent. A trial that runs again
continues from the summary's checkpoint, takes a summary that is there, and reports known validations again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import uuid4

from infrec.kernels.inner_regression import solve_summary
from infrec.kernels.ntk import NTK
from infrec.pipeline.cluster import OnValidation, ThreadPool, ignored
from infrec.pipeline.data import ITEMS, Dataset
from infrec.pipeline.distillation import DistillConfig, Method, summarise
from infrec.pipeline.models import (
    HISTORY,
    PAPER_EXPONENTS,
    InfiniteAEConfig,
    NystromConfig,
    labelled_rows,
    summary_bytes,
    summary_matrix,
)
from infrec.pipeline.report.findings import ALL_USERS, METRICS
from infrec.pipeline.serving import Learner, Lesson, evaluate
from infrec.pipeline.solvers import GramWorker, Search, Solver, fit_infinite_ae
from infrec.pipeline.solvers import solve_exact as infinite_ae_solved
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, Kind, Location
from infrec.pipeline.study.config import Trial
from infrec.pipeline.study.space import parameters_of


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial that has ended."""

    rows: list[dict[str, Any]]
    """Rows of the table of trials, one for each learner."""
    history: list[dict[str, Any]]
    """The validations of the trial."""

    @property
    def failed(self) -> bool:
        return any(row["status"] == "failed" for row in self.rows)

    def write(self, place: Location) -> None:
        place.write(json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, place: Location) -> Outcome | None:
        """Return the outcome that was written at `place`; None if there is none."""
        return cls(**json.loads(place.read().to_pybytes())) if place.exists() else None


@dataclass(frozen=True)
class Bench:
    """The place where trials find their data and leave their files. It can be pickled."""

    dataset: Dataset
    noisy: Mapping[tuple[float, int], Dataset]
    """(noise rate, seed) → the dataset with that noise."""
    work: Location
    solver: Solver
    """The solver of the ∞-AE on all users."""
    search: Search
    """The search for the λ of the ∞-AE on all users."""
    learners: tuple[Learner, ...]

    def place_of(self, trial: Trial) -> Location:
        """Return the place of the trial's outcome. The file exists once the trial has ended."""
        return self.work / ("tested" if trial.chosen else "searched") / f"{trial.name}.json"

    def summary_of(self, trial: Trial) -> Location:
        return self.work / "summaries" / trial.name

    def dataset_of(self, trial: Trial) -> Dataset:
        return self.noisy[trial.noise, trial.seed] if trial.noise else self.dataset

    def run(self, trial: Trial, on_validation: OnValidation = ignored) -> Outcome:
        """Return the outcome of a trial, from its file if it is known. A failure is an outcome, too.

        `on_validation` is called for every validation, and for the known ones again.
        """
        known = Outcome.read(self.place_of(trial))
        if known:
            for row in known.history:
                on_validation(row)
            return known
        try:
            outcome = self._all_users(trial) if trial.method == ALL_USERS else self._summary(trial, on_validation)
        except Exception as error:  # whatever it is, the other trials continue and the report shows it
            outcome = failed(trial, self.learners, _sentence(error))
        outcome.write(self.place_of(trial))
        return outcome

    def _summary(self, trial: Trial, on_validation: OnValidation) -> Outcome:
        location, clock = self.summary_of(trial), _Clock(self.work / "seconds" / f"{trial.name}.json")

        def validated(row: Mapping[str, Any]) -> None:
            clock.note()
            on_validation(row)

        if location.exists():  # a search made it and then chose it, or a killed run made it
            summary, seconds = Artefact.open(location, Kind.SUMMARY), clock.before
            for row in summary.table(HISTORY).to_pylist():
                on_validation(row)
        else:
            purpose = {"trial": trial.name, "config": asdict(trial.config)}
            with ArtefactWriter(location, Kind.SUMMARY, purpose=purpose) as writer:
                data = self.dataset_of(trial)
                summary = summarise(data, writer, trial.config, ThreadPool(), on_validation=validated)
            seconds = clock.note()
        history = summary.table(HISTORY).to_pylist()
        shared = {
            **_parameters(trial),
            "lambda": summary.manifest.config["lambda"],
            "seconds": seconds,
            "interactions": summary.manifest.counts["rows"],
            "bytes": summary_bytes(summary),
        }
        if "steps" in summary.manifest.counts:
            shared["steps"] = summary.manifest.counts["steps"]
        rows = [
            row_of(trial, learner, **{**self._learned(trial, learner, summary, seconds), **shared})
            for learner in self.learners
        ]
        return Outcome(rows, [{"trial": trial.name, **row} for row in history])

    def _learned(self, trial: Trial, learner: Learner, summary: Artefact, made_in: float) -> dict[str, Any]:
        """Return the metrics of a learner on the summary's users, and the seconds to train it on them."""
        if learner == Learner.INFINITE_AE:
            config, labelled = summary.manifest.config, labelled_rows(summary)
            users = labelled.weights.matrix if labelled else summary_matrix(summary)
            labels = labelled.factors.matrix if labelled else None
            ntk, lam = NTK(**config["ntk"]), config["lambda"]
            solve_summary(ntk, users, lam, labels)  # this call compiles
            # The solve is so short that another process may delay it by more than it takes: take the best of three
            seconds = min(_seconds(lambda: solve_summary(ntk, users, lam, labels)) for _ in range(3))
            if trial.method == Method.NYSTROM:
                seconds = made_in  # its coefficients are fitted to all users
            return {**self._metrics(trial, summary), "training_seconds": seconds}
        uri = str(summary.location)
        lesson = Lesson.of(uri, self.dataset, learner, seed=trial.seed, select=trial.select)
        return self._taught(trial, lesson)

    def _all_users(self, trial: Trial) -> Outcome:
        dataset, rows = self.dataset_of(trial), []
        size = sum(record.size for name, record in dataset.manifest.files.items() if name != ITEMS)
        shared = {"interactions": int(dataset.training_sizes().sum()), "bytes": size}
        for learner in self.learners:
            if learner == Learner.INFINITE_AE:
                measured = self._infinite_ae(trial, dataset)
            else:
                place = self.work / trial.name
                lesson = Lesson.of_all_users(dataset, learner, place, seed=trial.seed, select=trial.select)
                measured = self._taught(trial, lesson)
            rows.append(row_of(trial, learner, **shared, **measured))
        return Outcome(rows, [])

    def _taught(self, trial: Trial, lesson: Lesson) -> dict[str, Any]:
        """Train and judge a learner other than the ∞-AE. Return its part of a row."""
        started = time.perf_counter()
        with lesson.fitted() as model:
            return {
                "seconds": time.perf_counter() - started,
                "training_seconds": _seconds(lambda: lesson.train(model)),
                "lambda": model.manifest.config["lambda"],
                **self._metrics(trial, model),
            }

    def _infinite_ae(self, trial: Trial, dataset: Dataset) -> dict[str, Any]:
        """Train and judge the ∞-AE on all users. Train it once more with the λ that was chosen, to time that alone."""
        with self._fitted(trial, dataset, self.search) as (model, seconds):
            lam = (model.manifest.config["lambda"],)
            measured = {**self._metrics(trial, model), "seconds": seconds, "lambda": lam[0]}
        alone = Search(replace(self.search.exact, lambdas=lam), replace(self.search.nystrom, lambdas=lam))
        if self.solver == Solver.EXACT:  # time the solve without the fit's validation and writing
            train = dataset.training_matrix()
            with ThreadPool().workers(GramWorker, dataset) as workers:
                seconds = _seconds(lambda: next(infinite_ae_solved(workers, train, alone.exact, [])))
        else:
            with self._fitted(trial, dataset, alone) as (_, seconds):
                pass
        return {**measured, "training_seconds": seconds}

    @contextmanager
    def _fitted(self, trial: Trial, dataset: Dataset, search: Search) -> Iterator[tuple[Artefact, float]]:
        """Yield an ∞-AE of all users and the seconds that it took. The model is removed when the block ends."""
        place = self.work / f"{trial.name}-{uuid4().hex}"
        started = time.perf_counter()
        try:
            with ArtefactWriter(place, Kind.MODEL, purpose={}) as writer:
                model = fit_infinite_ae(self.solver, search, dataset, writer, ThreadPool())
            yield model, time.perf_counter() - started
        finally:
            place.remove()

    def _metrics(self, trial: Trial, model: Artefact) -> dict[str, float]:
        """Return the metrics on the dataset without noise. Only a trial with a chosen recipe is judged on test."""
        parts = ("validation", "test") if trial.chosen else ("validation",)
        judged = {part: evaluate(str(model.location), self.dataset, ThreadPool(), part=part).metrics for part in parts}
        return {f"{part} {name}": metrics[name] for part, metrics in judged.items() for name in METRICS}


def row_of(trial: Trial, learner: str, **known: Any) -> dict[str, Any]:
    """Return a row of the table of trials, with the columns that are `known`."""
    return {
        "trial": trial.name,
        "method": trial.method,
        "learner": learner,
        "budget": trial.budget,
        "noise": trial.noise,
        "seed": trial.seed,
        "status": "done",
        "chosen": trial.chosen,
        **known,
    }


def failed(trial: Trial, learners: Iterable[str], reason: str) -> Outcome:
    """Return the outcome of a trial that cannot be done, with the reason in every row."""
    return Outcome([row_of(trial, learner, status="failed", reason=reason) for learner in learners], [])


def stopped(trial: Trial, validations: Sequence[Mapping[str, Any]]) -> Outcome:
    """Return the outcome of a trial that the scheduler found hopeless after these validations."""
    best = max(validations, key=lambda row: row[trial.select])
    metrics = {f"validation {name}": best[name] for name in METRICS}
    known = {**_parameters(trial), "lambda": best["lambda"], "steps": validations[-1]["step"]}
    rows = [row_of(trial, Learner.INFINITE_AE, status="stopped", **{**known, **metrics})]
    return Outcome(rows, [{"trial": trial.name, **row} for row in validations])


def paper_search(select: str) -> Search:
    """Return the search of the ∞-AE on all users: the kernel is that of the summaries, λ is from the solver's grid."""
    shared: dict[str, Any] = {"exponents": PAPER_EXPONENTS, "select": select}
    return Search(InfiniteAEConfig(**shared), NystromConfig(**shared))


def _parameters(trial: Trial) -> dict[str, Any]:
    return parameters_of(trial.config) if isinstance(trial.config, DistillConfig) else {}


def _seconds(train: Callable[[], object]) -> float:
    started = time.perf_counter()
    train()
    return time.perf_counter() - started


def _sentence(error: Exception) -> str:
    first_line = str(error).split("\n", 1)[0]
    return first_line if isinstance(error, InputError) else f"{type(error).__name__}: {first_line}"


class _Clock:
    """The seconds that a trial has taken, including those of runs that were killed."""

    def __init__(self, place: Location) -> None:
        self._place = place
        self.before = float(place.read().to_pybytes()) if place.exists() else 0.0
        """The seconds that the last note recorded."""
        self._started = time.perf_counter()

    def note(self) -> float:
        """Write down the seconds until now, and return them."""
        seconds = self.before + time.perf_counter() - self._started
        self._place.write(str(seconds).encode())
        return seconds
