"""Results of a sweep without its seconds, and findings that no sweep made: a table of trials from a formula."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from infrec.pipeline.report.findings import ALL_USERS, METRICS, TRIALS_SCHEMA, Findings
from infrec.pipeline.storage import Artefact

USERS = 6040
_HALFWAY = {"distill-cf": 30, "nystrom": 300, "random-users": 700}
"""The budget at which a method has half of its quality."""


def made_up_findings(
    *,
    budgets: Iterable[int] = (10, 50, 200),
    learners: Iterable[str] = ("infinite-ae", "ease"),
    noise: Iterable[float] = (0.0, 0.2, 0.5),
    seeds: Iterable[int] = (0, 1, 2),
    temperatures: Iterable[float] = (0.5, 2.0),
    more: Iterable[Mapping[str, Any]] = (),
) -> Findings:
    """Trials with every combination of these, and the rows in `more`. Validation chose the temperature 0.5."""
    options = {"budgets": list(budgets), "learners": list(learners), "noise": list(noise), "seeds": list(seeds)}
    rng = np.random.default_rng(7)
    rows = [
        trial_row(method, learner, budget, rate, seed, temperature, luck=rng.normal(scale=0.2))
        for method, budget, temperature in _summaries(options["budgets"], list(temperatures))
        for rate in options["noise"]
        for seed in options["seeds"]
        for learner in options["learners"]
    ]
    return Findings(
        trials=pa.Table.from_pylist([*rows, *more], schema=TRIALS_SCHEMA),
        select="nDCG@10",
        target=0.8,
        dataset={"dataset": "data/films", "users": USERS, "items": 3706, "train interactions": 800_000},
        config=options,
        versions={"infrec": "0.1.0", "ray": "2.60.0"},
        seconds=4000.0,
    )


def trial_row(
    method: str,
    learner: str,
    budget: int,
    noise: float = 0.0,
    seed: int = 0,
    temperature: float | None = None,
    *,
    luck: float = 0.0,
) -> dict[str, Any]:
    """A row of the table of trials that is done."""
    chosen = temperature in (None, 0.5)
    quality = luck + 33 * budget / (budget + _HALFWAY.get(method, 1)) * (1 - noise / 3) * (1 if chosen else 0.9)
    quality += 0.5 if learner == "ease" else 0
    name = "-".join(str(part) for part in (method, budget, noise, seed, temperature) if part is not None)
    row = {"trial": name, "method": method, "learner": learner, "budget": budget, "noise": noise, "seed": seed}
    row |= {"status": "done", "chosen": chosen, "temperature": temperature, "lambda": 0.03, "seconds": 40 + budget / 10}
    if temperature:
        row |= {"draws": 200, "cardinality": 0.001, "learning_rate": 0.1, "drop": 0.3, "steps": 200}
    row |= {"training_seconds": 1e-6 * budget**1.7, "interactions": 130 * budget, "bytes": 400 * budget}
    row |= {f"validation {metric}": 0.7 * quality for metric in METRICS}
    return row | ({f"test {metric}": quality for metric in METRICS} if chosen else {})


def recommended(made: Artefact) -> dict[str, Any]:
    """The files of the recommended summary."""
    files = {name: record for name, record in made.manifest.files.items() if name.startswith("summary/")}
    assert files
    return files


def metrics_of_trials(made: Artefact) -> dict[str, list[float]]:
    """Trial → its test metrics."""
    rows = made.table("trials.parquet").to_pylist()
    return {row["trial"]: [row[f"test {name}"] for name in METRICS] for row in rows}


def _summaries(budgets: list[int], temperatures: list[float]) -> Iterator[tuple[str, int, float | None]]:
    for budget in budgets:
        yield from (("distill-cf", budget, temperature) for temperature in temperatures)
        yield from ((method, budget, None) for method in _HALFWAY if method != "distill-cf")
    yield ALL_USERS, USERS, None
