"""∞-AE and EASE on ML-1M: the fit with test evaluation, and what each model reaches.

    python -m benchmarks.infinite_ae [--logs ../shared/data/ml-1m.parquet] [--out benchmarks/results/infinite_ae.json]

Each program runs by itself, several times, and once more with its memory watched (which costs time). It is timed inside
a running Ray session, with the start of its actors, reading the dataset, writing the model and reading it back. What is
compared with the published code is in `benchmarks.official`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import environment, in_subprocess, peak_memory

LOGS = "../shared/data/ml-1m.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", default=LOGS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/infinite_ae.json"))
    parser.add_argument("--only", choices=("ingest", "paper", "degree", "ease"), help="one program")
    parser.add_argument("--dataset", help="with --only")
    parser.add_argument("--watch", action="store_true", help="with --only: peak memory, and nothing else")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(_watched(arguments) if arguments.watch else _PROGRAMS[arguments.only](arguments)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        dataset = f"{scratch}/dataset"
        run = ("benchmarks.infinite_ae", "--logs", arguments.logs, "--dataset", dataset, "--only")
        in_subprocess(*run, "ingest")
        runs = {
            name: [in_subprocess(*run, name) for _ in range(arguments.runs)] for name in ("paper", "degree", "ease")
        }
        figures = {
            name: {**made[0], "seconds": [one["seconds"] for one in made], **in_subprocess(*run, name, "--watch")}
            for name, made in runs.items()
        }
    report = {**environment(), **figures}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _ingest(arguments: argparse.Namespace) -> dict[str, Any]:
    from infrec.pipeline.cluster import ray_session
    from infrec.pipeline.ingest import IngestConfig, Split, ingest

    with ray_session():
        dataset = ingest([arguments.logs], arguments.dataset, IngestConfig(split=Split.COLUMN))
    return {"users": dataset.num_users}


def _watched(arguments: argparse.Namespace) -> dict[str, Any]:
    """The peak memory of a program: the driver and its workers, Python and all libraries, without Ray's servers."""
    from infrec.pipeline.cluster import ray_session

    with ray_session(), peak_memory() as peak:
        _PROGRAMS[arguments.only](arguments)
    return {"peak_mb": peak.of_the_job // 10**6}


def _ours(arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    from infrec.pipeline.cluster import ray_session

    with ray_session():
        from infrec.pipeline.cluster import open_pool
        from infrec.pipeline.data import Dataset
        from infrec.pipeline.models import PAPER_EXPONENTS, EASEConfig, InfiniteAEConfig, fit_ease
        from infrec.pipeline.serving import evaluate
        from infrec.pipeline.solvers import fit_exact
        from infrec.pipeline.storage import ArtefactWriter, Kind

        dataset = Dataset.open(arguments.dataset)
        out = f"{arguments.dataset}-{model}"
        writer = ArtefactWriter(out, Kind.MODEL, purpose={}, overwrite=True)
        started = time.perf_counter()
        pool = open_pool()
        if model == "ease":
            fitted = fit_ease(dataset, writer, EASEConfig())
        elif model == "paper":
            fitted = fit_exact(dataset, writer, InfiniteAEConfig(exponents=PAPER_EXPONENTS), pool)
        else:
            fitted = fit_exact(dataset, writer, InfiniteAEConfig(), pool)
        fit_seconds = time.perf_counter() - started
        metrics = evaluate(out, dataset, pool).metrics
        seconds = time.perf_counter() - started
    config = fitted.manifest.config
    return {
        "lambda": config["lambda"],
        **({"exponents": config["exponents"]} if "exponents" in config else {}),
        "test": metrics,
        "fit_seconds": round(fit_seconds, 2),
        "seconds": round(seconds, 2),
    }


_PROGRAMS = {
    "ingest": _ingest,
    "paper": lambda arguments: _ours(arguments, "paper"),
    "degree": lambda arguments: _ours(arguments, "degree"),
    "ease": lambda arguments: _ours(arguments, "ease"),
}

if __name__ == "__main__":
    main()
