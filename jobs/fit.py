"""`infrec fit`: fit a model to a dataset, and choose its hyper-parameters on the validation part."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
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
from infrec.kernels.normalisation import Exponents
from infrec.kernels.ntk import NTK
from infrec.pipeline.cluster import Report, Work, open_pool, session, this_machine
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import (
    DEGREE_EXPONENTS,
    EASE_LAMBDAS,
    MF_LAMBDAS,
    NYSTROM_LAMBDAS,
    PAPER_EXPONENTS,
    PAPER_LAMBDAS,
    VALIDATION,
    EASEConfig,
    InfiniteAEConfig,
    LandmarkSampling,
    MFConfig,
    NystromConfig,
    check_landmarks,
    fit_ease,
    fit_mf,
    fit_popularity,
    plan_ease,
    plan_mf,
)
from infrec.pipeline.solvers import Resources, Search, Solver, choose, fit_infinite_ae
from infrec.pipeline.storage import Artefact, ArtefactWriter, DoesNotFit, InputError, Kind

_SEARCHED = ("factors", "alpha", "lambda", "p", "q")


class Model(StrEnum):
    INFINITE_AE = "infinite-ae"
    EASE = "ease"
    MF = "mf"
    POPULARITY = "popularity"


class Normalize(StrEnum):
    DEGREE = "degree"
    NONE = "none"


class Choice(StrEnum):
    AUTO = "auto"
    EXACT = Solver.EXACT
    TILED = Solver.TILED
    NYSTROM = Solver.NYSTROM


Lambda = Annotated[
    str | None,
    typer.Option(
        "--lambda", help="λ, or a comma-separated grid. Default: the paper's, wide ones for ease, mf and nystrom."
    ),
]
Normalized = Annotated[
    Normalize,
    typer.Option("--normalize", help="none: the paper's kernel. degree: also kernels on degree-normalised rows."),
]
Exponent = Annotated[
    list[str] | None,
    typer.Option("--exponents", metavar="P,Q", help="Try these exponents of user and item degree (may be repeated)."),
]
Landmarks = Annotated[int | None, typer.Option(help=f"Of the nystrom solver. Default: {NystromConfig.landmarks:,}.")]


def fit(
    dataset: Annotated[str, typer.Argument(help="A dataset made by `infrec ingest`.")],
    out: Annotated[str, typer.Option(help="Where the model goes.")],
    model: Annotated[Model, typer.Option(help="What to fit.")] = Model.INFINITE_AE,
    lam: Lambda = None,
    normalize: Normalized = Normalize.DEGREE,
    exponents: Exponent = None,
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers of the infinite network.")] = 1,
    solver: Annotated[
        Choice,
        typer.Option(
            help="Of the ∞-AE. exact: in memory; tiled: exact, in files; nystrom: on landmarks, for any number of "
            "users; auto: the first of these that fits (see `infrec plan`)."
        ),
    ] = Choice.AUTO,
    landmarks: Landmarks = None,
    landmark_sampling: Annotated[
        LandmarkSampling | None,
        typer.Option(help=f"Of the nystrom solver. Default: {NystromConfig.sampling}."),
    ] = None,
    select: Annotated[str, typer.Option(help="The validation metric that chooses.")] = "nDCG@10",
    seed: Seed = 0,
    memory_limit: MemoryLimit = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Fit ∞-AE, EASE, matrix factorisation or popularity; hyper-parameters are chosen on validation."""
    started = time.perf_counter()
    limit = bytes_of(memory_limit)
    config: Search | EASEConfig | MFConfig | None = None
    _check_solver(model, solver, {"--landmarks": landmarks, "--landmark-sampling": landmark_sampling})
    if model == Model.INFINITE_AE:
        config = infinite_ae_search(
            lam=lam,
            normalize=normalize,
            exponents=exponents,
            depth=depth,
            select=select,
            seed=seed,
            landmarks=landmarks,
            sampling=landmark_sampling,
        )
    elif model == Model.EASE:
        config = EASEConfig(lambdas=numbers_of(lam, "--lambda") if lam else EASE_LAMBDAS, select=select, seed=seed)
    elif model == Model.MF:
        config = MFConfig(lambdas=numbers_of(lam, "--lambda") if lam else MF_LAMBDAS, select=select, seed=seed)
    data = Dataset.open(dataset)
    check_landmarks(landmarks or 0, data)
    searched = asdict(config) if config else {}
    purpose = {"model": model, "solver": solver, "config": searched, "data": data.manifest.fingerprint()}
    writer = ArtefactWriter(out, Kind.MODEL, purpose=purpose, overwrite=overwrite)
    work = _shared_work(config, solver, data, limit) if isinstance(config, Search) else Work()
    with writer, session(work, address=address, cpus=cpus, gpus=gpus) as cluster, console.progress() as report:
        if isinstance(config, Search):
            resources = Resources.of(cluster, memory_limit=limit, disk=writer.room())
            fitted = solve(config, solver, data, writer, resources, report)
        elif isinstance(config, EASEConfig):
            require(plan_ease(data, config), limit or cluster.memory)
            fitted = fit_ease(data, writer, config, report=report)
        elif isinstance(config, MFConfig):
            require(plan_mf(data, config), limit or cluster.memory)
            fitted = fit_mf(data, writer, config, report=report)
        else:
            fitted = fit_popularity(data, writer)
    _show(fitted, seconds=time.perf_counter() - started, as_json=as_json)


def infinite_ae_search(
    *,
    lam: str | None,
    normalize: Normalize,
    exponents: list[str] | None,
    depth: int = 1,
    select: str = InfiniteAEConfig.select,
    seed: int = 0,
    landmarks: int | None = None,
    sampling: LandmarkSampling | None = None,
) -> Search:
    """Return the search that these options ask for. Raises `InputError` where they are wrong."""
    shared: dict[str, Any] = {
        "exponents": _exponent_grid(normalize, exponents),
        "ntk": NTK(depth=depth),
        "select": select,
        "seed": seed,
    }
    given = {"landmarks": landmarks, "sampling": sampling}
    of_nystrom: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    lambdas = numbers_of(lam, "--lambda") if lam else None
    return Search(
        InfiniteAEConfig(lambdas=lambdas or PAPER_LAMBDAS, **shared),
        NystromConfig(lambdas=lambdas or NYSTROM_LAMBDAS, **shared, **of_nystrom),
    )


def solve(
    search: Search, choice: Choice, data: Dataset, writer: ArtefactWriter, resources: Resources, report: Report
) -> Artefact:
    """Fit with the solver that the user chose, or else with the first that fits. Raises `DoesNotFit`."""
    best = choose(data, search, resources, None if choice == Choice.AUTO else Solver(choice))
    if choice == Choice.AUTO:
        console.note(f"Solver: {best.solver}, the first that fits here. --solver {best.solver} takes it anywhere.")
    require(best.plan, resources.memory, resources.disk)
    with open_pool() as pool:
        return fit_infinite_ae(best.solver, search, data, writer, pool, report=report)


def _shared_work(search: Search, choice: Choice, data: Dataset, limit: int | None) -> Work:
    """Return the work that the pool has if this machine does all."""
    resources = Resources.of(this_machine(), memory_limit=limit, disk=None)
    try:
        return choose(data, search, resources, None if choice == Choice.AUTO else Solver(choice)).shared
    except DoesNotFit:
        return Work()  # `solve` refuses it, and no Ray is needed for that


def _check_solver(model: Model, solver: Choice, of_nystrom: Mapping[str, Any]) -> None:
    """Raise `InputError` for an option that was given and would change nothing."""
    if solver != Choice.AUTO and model != Model.INFINITE_AE:
        raise InputError(f"--solver {solver} is for --model {Model.INFINITE_AE}, not for {model}.")
    for option, value in of_nystrom.items():
        if value is not None and (solver not in (Choice.NYSTROM, Choice.AUTO) or model != Model.INFINITE_AE):
            raise InputError(f"{option} goes with --solver {Choice.NYSTROM}.")


def _exponent_grid(normalize: Normalize, chosen: list[str] | None) -> tuple[Exponents, ...]:
    if normalize == Normalize.NONE:
        if chosen:
            raise InputError("--exponents goes with --normalize degree.")
        return PAPER_EXPONENTS
    if not chosen:
        return DEGREE_EXPONENTS
    grid = []
    for text in chosen:
        pair = numbers_of(text, "--exponents")
        if len(pair) != 2 or max(pair) > 1:
            raise InputError(f"--exponents {text} is not a pair P,Q of numbers from 0 to 1, such as 0.4,0.25.")
        grid.append(Exponents(user=pair[0], item=pair[1]))
    return tuple(grid)


def _show(fitted: Artefact, *, seconds: float, as_json: bool) -> None:
    manifest = fitted.manifest
    trials: list[dict[str, Any]] = []
    if VALIDATION in manifest.files:
        trials = fitted.table(VALIDATION).to_pylist()
    if as_json:
        console.show_json(
            {
                "model": str(fitted.location),
                "config": dict(manifest.config),
                "counts": dict(manifest.counts),
                "validation": trials,
                "seconds": round(seconds, 2),
            }
        )
        return
    if trials:
        columns = [*(name for name in trials[0] if name in _SEARCHED), *console.HEADLINE_METRICS]
        rows = [[console.number(trial[name]) for name in columns] for trial in trials]
        console.show_table("Validation", columns, rows)
    chosen = ""
    if "lambda" in manifest.config:
        chosen = f", λ={manifest.config['lambda']:g}"
    if "factors" in manifest.config:
        chosen += ", {factors} factors, α={alpha:g}".format(**manifest.config)
    if "exponents" in manifest.config:
        chosen += ", p={user:g}, q={item:g}".format(**manifest.config["exponents"])
    if "landmarks" in manifest.counts:
        chosen += f", {manifest.counts['landmarks']:,} landmarks"
    if "residual" in manifest.counts:
        chosen += f", relative residual {manifest.counts['residual']:.1e}"
    console.result(f"{fitted.location}: {manifest.config['model']}{chosen} ({seconds:.1f} s)")
