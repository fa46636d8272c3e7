"""`infrec distill`: a summary of a few synthetic users, from which an ∞-AE recommends to all of them."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from jobs import console
from jobs.options import Address, Cpus, Debug, Json, MemoryLimit, Overwrite, Seed, bytes_of, numbers_of, require
from kernels.ntk import NTK
from kernels.sampler import Sampler
from pipeline.artefact import Artefact, ArtefactWriter, Kind
from pipeline.dataset import Dataset
from pipeline.distillation import DistillConfig, Objective, plan_distillation
from pipeline.distillation import distill as distill_summary
from pipeline.distillation.config import Schedule
from pipeline.distillation.training import METHOD
from pipeline.errors import InputError
from pipeline.recommenders.summary import HISTORY
from pipeline.session import ray_session
from pipeline.workers import Pool

_DEFAULT = DistillConfig()


def distill(
    dataset: Annotated[str, typer.Argument(help="A dataset that `infrec ingest` made.")],
    out: Annotated[str, typer.Option(help="Where the summary goes.")],
    budget: Annotated[int, typer.Option(help="Synthetic users.")] = _DEFAULT.budget,
    objective: Annotated[
        Objective, typer.Option(help="What is predicted of a user: all items, or those held out of the context.")
    ] = _DEFAULT.objective,
    drop: Annotated[float, typer.Option(help="Held-out: the part of a user's items that is held out.")] = _DEFAULT.drop,
    user_weight: Annotated[
        float, typer.Option(help="0: active users weigh more in the loss (the paper's); 1: all users the same.")
    ] = _DEFAULT.user_weight,
    temperature: Annotated[float, typer.Option(help="τ of the sampler.")] = _DEFAULT.sampler.temperature,
    draws: Annotated[int, typer.Option(help="T: draws a synthetic user.")] = _DEFAULT.sampler.draws,
    groups: Annotated[int, typer.Option(help="Groups of synthetic users that share noise.")] = _DEFAULT.sampler.groups,
    cardinality: Annotated[float, typer.Option(help="λ₂: weight of the summary's size.")] = _DEFAULT.cardinality,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, at its peak.")] = _DEFAULT.learning_rate,
    schedule: Annotated[Schedule, typer.Option(help="Of the learning rate.")] = _DEFAULT.schedule,
    steps: Annotated[int, typer.Option(help="Updates of the summary.")] = _DEFAULT.steps,
    batch: Annotated[int, typer.Option(help="Users of a step; all where there are no more.")] = _DEFAULT.batch,
    accumulate: Annotated[int, typer.Option(help="Batches of an update.")] = _DEFAULT.accumulate,
    lam: Annotated[
        str | None,
        typer.Option("--lambda", help="λ of the inner regression, or a comma-separated grid; validation chooses."),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers of the network.")] = _DEFAULT.ntk.depth,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = _DEFAULT.validate_every,
    patience: Annotated[int, typer.Option(help="Validations without a better one to stop after.")] = _DEFAULT.patience,
    select: Annotated[str, typer.Option(help="The validation metric that chooses.")] = _DEFAULT.select,
    parts: Annotated[int, typer.Option(help="Parts of a step, each done by one actor.")] = _DEFAULT.parts,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = _DEFAULT.checkpoint_every,
    warm_start: Annotated[str | None, typer.Option(help="A summary to begin with; items are matched by id.")] = None,
    memory_limit: MemoryLimit = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
) -> None:
    """Learn a summary of synthetic users by Distill-CF. The same command, run again, goes on after a kill."""
    started = time.perf_counter()
    limit = bytes_of(memory_limit)
    config = DistillConfig(
        budget=budget,
        sampler=_sampler(draws=draws, temperature=temperature, groups=groups),
        ntk=NTK(depth=depth),
        objective=objective,
        drop=drop,
        user_weight=user_weight,
        cardinality=cardinality,
        learning_rate=learning_rate,
        schedule=schedule,
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        lambdas=numbers_of(lam, "--lambda") if lam else _DEFAULT.lambdas,
        validate_every=validate_every,
        patience=patience,
        select=select,
        parts=parts,
        checkpoint_every=checkpoint_every,
        seed=seed,
    )
    data = Dataset.open(dataset)
    start = Artefact.open(warm_start, Kind.SUMMARY) if warm_start else None
    purpose = {
        "method": METHOD,
        "dataset": data.manifest.fingerprint(),
        "warm start": start.manifest.fingerprint() if start else None,
        **asdict(config),
    }
    writer = ArtefactWriter(out, Kind.SUMMARY, purpose=purpose, overwrite=overwrite, keep_unfinished=True)
    with writer, ray_session(address=address, cpus=cpus) as cluster, console.progress() as report:
        require(plan_distillation(data, config), limit or cluster.memory)
        with Pool() as pool:
            summary = distill_summary(data, writer, config, pool, warm_start=start, report=report)
    _show(summary, seconds=time.perf_counter() - started, as_json=as_json)


def _sampler(**options: float) -> Sampler:
    try:
        return Sampler(**options)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"--draws, --groups, --temperature: {error}.") from error


def _show(summary: Artefact, *, seconds: float, as_json: bool) -> None:
    manifest, history = summary.manifest, summary.table(HISTORY).to_pylist()
    if as_json:
        console.show_json(
            {
                "summary": str(summary.location),
                "lambda": manifest.config["lambda"],
                "counts": dict(manifest.counts),
                "history": history,
                "seconds": round(seconds, 2),
            }
        )
        return
    columns = ["step", "lambda", *console.HEADLINE_METRICS]
    rows = [
        [row["step"], f"{row['lambda']:g}", *(console.number(row[name]) for name in columns[2:])] for row in history
    ]
    console.show_table("Validation", columns, rows)
    counts = manifest.counts
    if "new_items" in counts:
        console.note(
            f"Warm start: {counts['new_items']:,} items of the dataset were new and started cold, "
            f"{counts['items_gone']:,} of the summary were not in the dataset."
        )
    console.result(
        f"{summary.location}: {counts['budget']:,} synthetic users of step {counts['best_step']}, "
        f"λ={manifest.config['lambda']:g} ({seconds:.1f} s)"
    )
