"""`infrec evaluate`: ranking metrics of models on a dataset's validation or test part."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from jobs import console
from jobs.options import Address, Cpus, Debug, Json, Seed
from pipeline.dataset import Dataset
from pipeline.scoring import evaluate_all
from pipeline.session import ray_session
from pipeline.workers import Pool


class Part(StrEnum):
    TEST = "test"
    VALIDATION = "validation"


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="One or more models.")],
    data: Annotated[str, typer.Option(help="The dataset whose users are predicted.")],
    part: Annotated[Part, typer.Option(help="What is predicted.")] = Part.TEST,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
) -> None:
    """HR, Recall, nDCG, PSP and AUC of models on held-out interactions; at test the context includes validation."""
    dataset = Dataset.open(data)
    with ray_session(address=address, cpus=cpus), Pool() as pool, console.progress() as report:
        evaluations = list(evaluate_all(models, dataset, pool, part=part, seed=seed, report=report))
    if as_json:
        results = [
            {"model": model, "part": part, **asdict(result)} for model, result in zip(models, evaluations, strict=True)
        ]
        console.show_json({"evaluations": results})
        return
    first = evaluations[0]
    skipped = f", {first.skipped:,} without {part} items skipped" if first.skipped else ""
    console.show_table(
        f"{part}: {first.users:,} users{skipped}",
        ["model", *console.HEADLINE_METRICS, "seconds"],
        [[model, *console.metric_cells(result)] for model, result in zip(models, evaluations, strict=True)],
    )
