"""`infrec distill`: make a summary of a few users, learned or chosen. From it an ∞-AE recommends to all users."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any

import typer

from infrec.jobs import console
from infrec.jobs.options import (
    Address,
    Cpus,
    Debug,
    Gpus,
    Json,
    MemoryLimit,
    Overwrite,
    Seed,
    bytes_of,
    numbers_of,
    require,
)
from infrec.kernels.ntk import NTK
from infrec.kernels.sampler import Sampler
from infrec.pipeline.cluster import open_pool, ray_session
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import (
    BaselineConfig,
    DistillConfig,
    Labels,
    Method,
    Objective,
    Schedule,
    plan_summarise,
    summarise,
)
from infrec.pipeline.models import HISTORY
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, Kind

_DEFAULT = DistillConfig()
_BY = "Default: what suits the budget."
_OF_DISTILL_CF = {field.name for config in (DistillConfig, Sampler) for field in fields(config)} | {"warm_start"}
_OF_DISTILL_CF -= {field.name for field in fields(BaselineConfig)}
"""The options that only Distill-CF has."""


def distill(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="A dataset that `infrec ingest` made.")],
    out: Annotated[str, typer.Option(help="Where the summary goes.")],
    method: Annotated[
        Method, typer.Option(help="How the users come about; all but distill-cf are what it is compared with.")
    ] = Method.DISTILL_CF,
    budget: Annotated[int, typer.Option(help="Users of the summary.")] = _DEFAULT.budget,
    labels: Annotated[
        Labels,
        typer.Option(help="What the users predict: labels that are fitted to all users, or their own items."),
    ] = _DEFAULT.labels,
    label_drop: Annotated[
        float, typer.Option(help="Solved labels: the part of their items that users lack in the fit.")
    ] = _DEFAULT.label_drop,
    label_draws: Annotated[
        int, typer.Option(help="Solved labels: the times that each user takes part in the fit.")
    ] = _DEFAULT.label_draws,
    label_user_weight: Annotated[
        float, typer.Option(help="Solved labels: 0: active users count more in the fit; 1: all alike.")
    ] = _DEFAULT.label_user_weight,
    label_rank: Annotated[
        int, typer.Option(help="Solved labels: their greatest rank. Validation may choose a lower one.")
    ] = _DEFAULT.label_rank,
    label_agreement: Annotated[
        float,
        typer.Option(help="Solved labels: the part of the first ten recommendations that stays when they are rounded."),
    ] = _DEFAULT.label_agreement,
    weight_step: Annotated[
        float, typer.Option(help="Solved labels: the step that weights are rounded to; the greater, the fewer bytes.")
    ] = _DEFAULT.weight_step,
    weighted_items: Annotated[
        int | None,
        typer.Option(help="Solved labels: the most popular items, which alone have weights. Default: by coverage."),
    ] = None,
    start_from_groups: Annotated[
        int, typer.Option(help="Like users whose mean a synthetic user begins with; 1: one user's own row.")
    ] = _DEFAULT.start_from_groups,
    objective: Annotated[
        Objective, typer.Option(help="What is predicted of a user: all items, or those held out of the context.")
    ] = _DEFAULT.objective,
    drop: Annotated[float | None, typer.Option(help=f"Held-out: the part of a user's items to predict. {_BY}")] = None,
    user_weight: Annotated[
        float, typer.Option(help="0: active users weigh more in the loss (the paper's); 1: all users the same.")
    ] = _DEFAULT.user_weight,
    sharpness: Annotated[float, typer.Option(help="κ: factor on the scores in the loss.")] = _DEFAULT.sharpness,
    temperature: Annotated[float, typer.Option(help="τ of the sampler.")] = _DEFAULT.sampler.temperature,
    draws: Annotated[int, typer.Option(help="T: draws a synthetic user.")] = _DEFAULT.sampler.draws,
    groups: Annotated[int, typer.Option(help="Groups of synthetic users that share noise.")] = _DEFAULT.sampler.groups,
    cardinality: Annotated[float, typer.Option(help="λ₂: weight of the summary's size.")] = _DEFAULT.cardinality,
    learning_rate: Annotated[float | None, typer.Option(help=f"Of Adam, at its peak. {_BY}")] = None,
    schedule: Annotated[Schedule, typer.Option(help="Of the learning rate.")] = _DEFAULT.schedule,
    steps: Annotated[int | None, typer.Option(help=f"Updates of the summary. {_BY}")] = None,
    restarts: Annotated[
        int | None,
        typer.Option(
            help=f"Times that steps begin anew near the best summary, as long as that helps. With --steps: 0. {_BY}"
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Users of a step; all where there are no more.")] = _DEFAULT.batch,
    accumulate: Annotated[int, typer.Option(help="Batches of an update.")] = _DEFAULT.accumulate,
    lam: Annotated[
        str | None,
        typer.Option("--lambda", help="λ of the inner regression, or a comma-separated grid; validation chooses."),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers of the network.")] = _DEFAULT.ntk.depth,
    validate_every: Annotated[int | None, typer.Option(help=f"Steps between validations. {_BY}")] = None,
    patience: Annotated[int, typer.Option(help="Validations without a better one to stop after.")] = _DEFAULT.patience,
    judged_users: Annotated[
        int, typer.Option(help="Validation judges by so many users, drawn at random; by all where there are no more.")
    ] = _DEFAULT.judged_users,
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
    gpus: Gpus = None,
) -> None:
    """Learn a summary of synthetic users by Distill-CF. The same command, run again, goes on after a kill.

    With another --method: choose users that are there, or fit Nyström's coefficients to some of them.
    """
    started = time.perf_counter()
    limit = bytes_of(memory_limit)
    lambdas = numbers_of(lam, "--lambda") if lam else None
    config: DistillConfig | BaselineConfig
    if method == Method.DISTILL_CF:
        by_budget = {
            "drop": drop,
            "learning_rate": learning_rate,
            "steps": steps,
            "restarts": restarts,
            "validate_every": validate_every,
        }
        config = DistillConfig.for_budget(
            budget,
            sampler=_sampler(draws=draws, temperature=temperature, groups=groups),
            ntk=NTK(depth=depth),
            labels=labels,
            label_drop=label_drop,
            label_draws=label_draws,
            label_user_weight=label_user_weight,
            label_rank=label_rank,
            label_agreement=label_agreement,
            weight_step=weight_step,
            weighted_items=weighted_items,
            start_from_groups=start_from_groups,
            objective=objective,
            user_weight=user_weight,
            sharpness=sharpness,
            cardinality=cardinality,
            schedule=schedule,
            batch=batch,
            accumulate=accumulate,
            lambdas=lambdas or _DEFAULT.lambdas,
            patience=patience,
            judged_users=judged_users,
            select=select,
            parts=parts,
            checkpoint_every=checkpoint_every,
            seed=seed,
            **{name: value for name, value in by_budget.items() if value is not None},
        )
    else:
        _refuse_options_of_distill_cf(context, method)
        config = BaselineConfig(
            method=method,
            budget=budget,
            ntk=NTK(depth=depth),
            lambdas=lambdas,
            judged_users=judged_users,
            select=select,
            parts=parts,
            seed=seed,
        )
    data = Dataset.open(dataset)
    start = Artefact.open(warm_start, Kind.SUMMARY) if warm_start else None
    purpose = {
        "method": method,
        "dataset": data.manifest.fingerprint(),
        "warm start": start.manifest.fingerprint() if start else None,
        **asdict(config),
    }
    takes_long = method == Method.DISTILL_CF
    writer = ArtefactWriter(out, Kind.SUMMARY, purpose=purpose, overwrite=overwrite, keep_unfinished=takes_long)
    with writer, ray_session(address=address, cpus=cpus, gpus=gpus) as cluster, console.progress() as report:
        require(plan_summarise(data, config), limit or cluster.memory)
        with open_pool() as pool:
            summary = summarise(data, writer, config, pool, warm_start=start, report=report)
    if method == Method.DISTILL_CF:
        taken = summary.manifest.config["options"]["sampler"]["draws"]
        if taken < draws:
            console.note(f"Draws: {taken:,} in place of {draws:,}, half as many as there are items: weights end at 1.")
    _show(summary, seconds=time.perf_counter() - started, as_json=as_json)


def _refuse_options_of_distill_cf(context: typer.Context, method: Method) -> None:
    """Raise `InputError` for an option that was given and would change nothing."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in _OF_DISTILL_CF and source and source.name == "COMMANDLINE":
            raise InputError(f"{option.opts[0]} is for --method {Method.DISTILL_CF}, not for {method}.")


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
    learned = manifest.config["method"] == Method.DISTILL_CF
    columns = ["step", "lambda", "labels"] if learned else ["lambda"]
    rows = [
        [*(_told(row, name) for name in columns), *(console.number(row[name]) for name in console.HEADLINE_METRICS)]
        for row in history
    ]
    console.show_table("Validation", [*columns, *console.HEADLINE_METRICS], rows)
    counts = manifest.counts
    if "new_items" in counts:
        console.note(
            f"Warm start: {counts['new_items']:,} items of the dataset were new and started cold, "
            f"{counts['items_gone']:,} of the summary were not in the dataset."
        )
    users = f"synthetic users of step {counts['best_step']}" if learned else f"users ({manifest.config['method']})"
    console.result(
        f"{summary.location}: {counts['budget']:,} {users}, λ={manifest.config['lambda']:g} ({seconds:.1f} s)"
    )


def _told(row: Mapping[str, Any], name: str) -> str:
    if name == "labels":
        return Labels.OWN if row["ridge"] is None else f"{Labels.SOLVED}, c'={row['ridge']:g}"
    return f"{row[name]:g}"
