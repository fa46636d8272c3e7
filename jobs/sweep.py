"""`infrec sweep`: find how few synthetic users are enough for a dataset, and write a report that shows it."""

from __future__ import annotations

import time
from enum import StrEnum
from shlex import quote
from typing import Annotated, TypeVar

import pyarrow.compute as pc
import typer

from infrec.jobs import console
from infrec.jobs.options import Address, Cpus, Debug, Gpus, Json, Overwrite, Seed, bytes_of, numbers_of
from infrec.pipeline.cluster import ray_session
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import Method
from infrec.pipeline.report.findings import Findings
from infrec.pipeline.serving import Learner
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, Kind, unfinished
from infrec.pipeline.study.config import SweepConfig
from infrec.pipeline.study.placement import Share
from infrec.pipeline.study.run import REPORT, check_budgets
from infrec.pipeline.study.run import sweep as run_sweep
from infrec.pipeline.study.space import DEFAULT_SPACE, PARAMETERS, Space, read_space

_DEFAULT = SweepConfig(budgets=(1,))
_PARTS = ("validation", "test")
Name = TypeVar("Name", bound=StrEnum)


def sweep(
    dataset: Annotated[str, typer.Argument(help="A dataset that `infrec ingest` made.")],
    out: Annotated[str, typer.Option(help="Where the report goes.")],
    budgets: Annotated[str, typer.Option(help="Numbers of synthetic users, going up.")] = "10,20,50,100,200,500",
    methods: Annotated[str, typer.Option(help="What makes the summaries.")] = ",".join(_DEFAULT.methods),
    learners: Annotated[str, typer.Option(help="What is trained on them: infinite-ae, ease, mf.")] = ",".join(
        _DEFAULT.learners
    ),
    noise: Annotated[
        str, typer.Option(help="False train interactions for each true one, besides none: such as 0.1,0.3.")
    ] = "0",
    seeds: Annotated[int, typer.Option(help="Summaries of every kind, from --seed on.")] = _DEFAULT.seeds,
    samples: Annotated[
        int,
        typer.Option(
            help="Recipes of distill-cf to try at every budget: what suits the budget, and others from the search "
            "space. Validation chooses; hopeless ones are stopped early."
        ),
    ] = _DEFAULT.samples,
    space: Annotated[
        str | None,
        typer.Option(help=f"Search space, a TOML or YAML file: numbers, lists or ranges of {', '.join(PARAMETERS)}."),
    ] = None,
    target: Annotated[
        float, typer.Option(help="The share of the quality of all users, on validation, that is enough.")
    ] = _DEFAULT.target,
    select: Annotated[str, typer.Option(help="The validation metric that chooses.")] = _DEFAULT.select,
    trial_cpus: Annotated[float, typer.Option(min=0.01, help="CPUs that a trial takes.")] = 1.0,
    trial_gpus: Annotated[float, typer.Option(min=0.0, help="GPUs that a trial takes, such as 0.5.")] = 0.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished sweep, and with no other.")
    ] = False,
    memory_limit: Annotated[
        str | None, typer.Option(help="Memory of a node that trials may take, such as 8GB. Default: all that Ray has.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Make summaries of many budgets by several methods, and say how few synthetic users are enough.

    Ray Tune runs the trials, several at once. The same command, run again, goes on after a kill.
    """
    started = time.perf_counter()
    limit = bytes_of(memory_limit)
    searched: Space = DEFAULT_SPACE if samples > 1 else {}
    if space:
        searched = read_space(space)
    config = SweepConfig(
        budgets=_whole(budgets),
        methods=_named(methods, Method, "--methods"),
        learners=_named(learners, Learner, "--learners"),
        noise=numbers_of(noise, "--noise"),
        seeds=seeds,
        samples=samples,
        space=searched,
        target=target,
        select=select,
        seed=seed,
    )
    data = Dataset.open(dataset)
    check_budgets(config, data)
    if resume and not unfinished(out):
        raise InputError(f"There is no unfinished sweep to resume at {out}.")
    purpose = {"dataset": data.manifest.fingerprint(), **config.described}
    writer = ArtefactWriter(out, Kind.SWEEP, purpose=purpose, overwrite=overwrite, keep_unfinished=True)
    share = Share(cpus=trial_cpus, gpus=trial_gpus)
    with writer, ray_session(address=address, cpus=cpus, gpus=gpus), console.progress() as report:
        made, findings = run_sweep(data, writer, config, share, memory_limit=limit, report=report)
    _show(made, findings, seconds=time.perf_counter() - started, as_json=as_json)


def _whole(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"--budgets {quote(text)} is not a comma-separated list of whole numbers.") from None


def _named(text: str, kind: type[Name], option: str) -> tuple[Name, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in {*kind}:
            raise InputError(f"{option}: there is no {name}; there are {', '.join(kind)}.")
    return tuple(kind(name) for name in names)


def _show(made: Artefact, findings: Findings, *, seconds: float, as_json: bool) -> None:
    if as_json:
        recipe = findings.recipe
        console.show_json(
            {
                "report": str(made.location / REPORT),
                "sentence": findings.sentence,
                "budget": recipe.budget if recipe else None,
                "trials": findings.trials.to_pylist(),
                "seconds": round(seconds, 2),
            }
        )
        return
    metric = findings.select
    rows = []
    for point in findings.points:
        share = findings.share(point)
        rows.append(
            [
                point.method,
                point.learner,
                f"{point.budget:,}",
                f"{point.noise:g}",
                *(
                    f"{console.number(point.mean(f'{part} {metric}'))} ± {point.spread(f'{part} {metric}'):.2f}"
                    for part in _PARTS
                ),
                f"{100 * share:.1f}" if share else "",
            ]
        )
    columns = ["method", "learner", "users", "noise", *(f"{part} {metric}" for part in _PARTS), "% of all users"]
    console.show_table(f"{metric}, mean and deviation over seeds", columns, rows)
    for trial in findings.trials.filter(pc.equal(findings.trials["status"], "failed")).to_pylist():
        console.note(f"{trial['trial']} ({trial['learner']}) failed: {trial['reason']}")
    console.result(f"{made.location / REPORT}: {findings.sentence} ({seconds:.1f} s)")
