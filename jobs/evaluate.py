"""`infrec evaluate`: compute ranking metrics of models on a dataset's validation or test part."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from infrec.jobs import console
from infrec.jobs.options import Address, Cpus, Debug, Gpus, Json, MemoryLimit, Seed, bytes_of, require
from infrec.pipeline.cluster import Work, open_pool, session
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import open_model
from infrec.pipeline.serving import Learner, Lesson, evaluate_all, scoring_work
from infrec.pipeline.storage import Artefact, InputError


class Part(StrEnum):
    TEST = "test"
    VALIDATION = "validation"


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="One or more models or summaries.")],
    data: Annotated[str, typer.Option(help="The dataset whose users are predicted.")],
    part: Annotated[Part, typer.Option(help="What is predicted.")] = Part.TEST,
    learner: Annotated[
        Learner, typer.Option(help="What is trained on a summary. ease, mf: tuned on the dataset's validation part.")
    ] = Learner.INFINITE_AE,
    memory_limit: MemoryLimit = None,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """HR, Recall, nDCG, PSP and AUC of models on held-out interactions; at test the context includes validation."""
    limit, dataset = bytes_of(memory_limit), Dataset.open(data)
    lessons: list[Lesson] = []
    # Open the models together with the dataset: later their state may have another version
    opened = [open_model(model, dataset, earlier=True) for model in models]
    if learner != Learner.INFINITE_AE:
        lessons = [Lesson.of(model, dataset, learner, seed=seed) for model in models]
    elif memory_limit is not None:
        raise InputError("--memory-limit goes with a --learner that is trained here: ease or mf.")
    work = sum((scoring_work(model, dataset.num_users) for model in opened), Work())
    if lessons:  # the models that are trained are larger than the summaries
        work += Work(dense=2.0 * len(models) * dataset.num_users * dataset.num_items**2)
    with (
        session(work, address=address, cpus=cpus, gpus=gpus) as cluster,
        console.progress() as report,
        ExitStack() as stack,
    ):
        for lesson in lessons:
            require(lesson.plan, limit or cluster.memory)
        fitted = [stack.enter_context(lesson.fitted(report)) for lesson in lessons]
        evaluated = [model.location for model in fitted or opened]
        pool = stack.enter_context(open_pool())
        evaluations = list(evaluate_all(evaluated, dataset, pool, part=part, seed=seed, report=report))
    trained = [{"learner": learner, **_chosen(model)} for model in fitted] or [{} for _ in models]
    if as_json:
        results = [
            {"model": model, **how, "part": part, **asdict(result)}
            for model, how, result in zip(models, trained, evaluations, strict=True)
        ]
        console.show_json({"evaluations": results})
        return
    first = evaluations[0]
    skipped = f", {first.skipped:,} without {part} items skipped" if first.skipped else ""
    console.show_table(
        f"{part}: {first.users:,} users{skipped}" + (f", {learner} trained on each summary" if lessons else ""),
        ["model", *console.HEADLINE_METRICS, "seconds"],
        [[model, *console.metric_cells(result)] for model, result in zip(models, evaluations, strict=True)],
    )
    for uri, model in zip(models, fitted, strict=False):
        console.result(
            f"{uri}: {learner}, " + ", ".join(f"{name} {value:.4g}" for name, value in _chosen(model).items())
        )


def _chosen(model: Artefact) -> dict[str, float]:
    """Return the hyper-parameters that validation chose."""
    config = model.manifest.config
    return {name: config[name] for name in ("factors", "alpha", "lambda") if name in config}
