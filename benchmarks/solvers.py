"""The exact solvers of the ∞-AE side by side, and the one in files beyond memory, against what their plans say.

    python -m benchmarks.solvers [--only ml-1m|wide|limit …] [--logs ../shared/data/ml-1m.parquet]

ml-1m    in files against in memory, λ = 5: metrics and seconds of fit and test evaluation, in turn
wide     in files, a synthetic log of 30,000 users × 40,000 items, 1M rows: one λ, fit and evaluation of all users
limit    in files, a synthetic log of 40,000 users (a Gram matrix of 6.4 GB) within --memory-limit 2GB: fit of one λ

Peaks are of the driver and its workers, with Python and all libraries.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.infinite_ae import LOGS
from benchmarks.measure import WHILE_TIMED, environment, in_subprocess, peak_memory

OUT = Path("benchmarks/results/solvers.json")
LIMIT = 2 * 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", default=LOGS)
    parser.add_argument("--only", nargs="+", choices=_FIGURES, default=list(_FIGURES))
    parser.add_argument("--run", help="one fit, as JSON; for the script itself")
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(_run(**json.loads(arguments.run))))
        return
    report = json.loads(OUT.read_text()) if OUT.exists() else {}
    for figure in arguments.only:
        with tempfile.TemporaryDirectory() as scratch:
            report |= {**environment(), figure: _FIGURES[figure](arguments.logs, scratch)}
        OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _ml_1m(logs: str, scratch: str) -> dict[str, Any]:
    dataset = made(f"{scratch}/dataset", logs=logs)
    runs = [{solver: fitted(dataset=dataset, solver=solver) for solver in ("exact", "tiled")} for _ in range(3)]
    ratios = [run["tiled"]["seconds"] / run["exact"]["seconds"] for run in runs]
    return {"tiled_to_exact_seconds": [round(ratio, 2) for ratio in ratios], "runs": runs}


def _wide(logs: str, scratch: str) -> dict[str, Any]:
    dataset = made(f"{scratch}/dataset", rows=1_000_000, users=30_000, items=40_000)
    return fitted(dataset=dataset, solver="tiled")


def _limit(logs: str, scratch: str) -> dict[str, Any]:
    dataset = made(f"{scratch}/dataset", rows=1_000_000, users=40_000, items=10_000)
    return fitted(dataset=dataset, solver="tiled", limit=LIMIT, evaluated=False)


_FIGURES = {"ml-1m": _ml_1m, "wide": _wide, "limit": _limit}


def made(out: str, **of: Any) -> str:
    """Make a dataset at `out` of a synthetic log of such a shape, or of `logs`, in a process of its own."""
    return str(in_subprocess("benchmarks.solvers", "--run", json.dumps({"dataset": out, "make": of}))["dataset"])


def fitted(**run: Any) -> dict[str, Any]:
    """Fit and evaluate in a process of its own: see `_run`."""
    return in_subprocess("benchmarks.solvers", "--run", json.dumps(run))


def _run(
    dataset: str,
    make: dict[str, Any] | None = None,
    solver: str | None = None,
    limit: int | None = None,
    evaluated: bool = True,
) -> dict[str, Any]:
    """Make the dataset, where `make` says of what; fit it with a solver and evaluate on test, where one is named."""
    from infrec.pipeline.cluster import ray_session

    with ray_session() as cluster:
        if make:
            _make(dataset, **make)
        if not solver:
            return {"dataset": dataset}
        from infrec.jobs import console
        from infrec.jobs.fit import Choice, Normalize, infinite_ae_search, solve
        from infrec.pipeline.cluster import Run, open_pool, silent
        from infrec.pipeline.data import Dataset
        from infrec.pipeline.serving import evaluate
        from infrec.pipeline.solvers import Resources, estimates
        from infrec.pipeline.storage import ArtefactWriter, Kind

        console.begin(Run.of("fit"))
        data = Dataset.open(dataset)
        search = infinite_ae_search(lam="5", normalize=Normalize.NONE, exponents=None)
        writer = ArtefactWriter(f"{dataset}-{solver}", Kind.MODEL, purpose={}, overwrite=True)
        resources = Resources.of(cluster, memory_limit=limit, disk=writer.room())
        (estimate,) = [one for one in estimates(data, search, resources) if one.solver == solver]
        with peak_memory(WHILE_TIMED) as peak:
            started = time.perf_counter()
            fitted = solve(search, Choice(solver), data, writer, resources, silent)
            fit_seconds, fit_peak = time.perf_counter() - started, replace(peak)
            metrics: Mapping[str, float] = {}
            if evaluated:
                with open_pool() as pool:
                    metrics = evaluate(str(fitted.location), data, pool).metrics
            seconds = time.perf_counter() - started
    return {
        "users": data.num_training_users,
        "items": data.num_items,
        "interactions": data.manifest.counts["train"],
        "solver": solver,
        "test": {name: round(metrics[name], 3) for name in ("HR@10", "HR@100", "nDCG@10", "nDCG@100") if evaluated},
        "fit_seconds": round(fit_seconds, 1),
        "planned_fit_seconds": round(estimate.seconds, 1),
        "seconds": round(seconds, 1),
        "fit_peak_gb": round(fit_peak.of_the_job / 1e9, 2),
        "planned_peak_gb": round(estimate.plan.peak / 1e9, 2),
        "peak_gb": round(peak.of_the_job / 1e9, 2),
    }


def _make(out: str, logs: str | None = None, **shape: int) -> None:
    from infrec.pipeline.data import GenerateConfig, generate_log
    from infrec.pipeline.ingest import IngestConfig, Split, ingest

    if logs:
        ingest([logs], out, IngestConfig(split=Split.COLUMN))
        return
    generate_log(f"{out}-log", GenerateConfig(**shape))
    ingest([f"{out}-log"], out, IngestConfig())


if __name__ == "__main__":
    main()
