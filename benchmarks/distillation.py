"""Distill-CF on ML-1M, Magazine, Douban and a log of Netflix's size: time of a run, memory, quality.

    python -m benchmarks.distillation [--only time logs …] [--logs ../shared/data] [--large DATASET]

Quality by budget and by method on ML-1M is what `benchmarks.sweep` measures.

Each figure goes into results/distillation.json under its own name, so that they can be measured one at a time. The
large log is synthetic (see `benchmarks.nystrom`), made and ingested here unless --large names the dataset.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measure import WHILE_TIMED, environment, in_subprocess, peak_memory
from benchmarks.nystrom import LARGE, figures_on_test, large_dataset

LOGS = ("ml-1m", "magazine", "douban")
SEEDS = (0, 1, 2)
MEANT = ("nDCG@10", "HR@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=_FIGURES, default=list(_FIGURES), help="some figures")
    parser.add_argument("--logs", type=Path, default=Path("../shared/data"))
    parser.add_argument("--large", type=Path, help="the dataset of the large log")
    parser.add_argument("--scratch", type=Path, help="where datasets and summaries lie for the time of the run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distillation.json"))
    parser.add_argument("--program", choices=_PROGRAMS, help="run one program on --dataset by itself")
    parser.add_argument("--dataset")
    arguments = parser.parse_args()
    if arguments.program:
        print(json.dumps(_PROGRAMS[arguments.program](arguments.dataset)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        if {*arguments.only} - {"size"}:
            for name in LOGS:
                _ingest(arguments.logs / f"{name}.parquet", Path(scratch) / name)
        if arguments.large:
            (Path(scratch) / "large").symlink_to(arguments.large.resolve())
        elif "size" in arguments.only:
            large_dataset(Path(scratch))
        for figure in arguments.only:
            result = {**environment(), **_FIGURES[figure](Path(scratch))}
            known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps({**known, figure: result}, indent=1) + "\n")
            print(json.dumps({figure: result}, indent=1), flush=True)


def _ingest(log: Path, out: Path) -> None:
    from infrec.pipeline.cluster import ray_session
    from infrec.pipeline.ingest import IngestConfig, Split, ingest

    with ray_session():
        ingest([str(log)], str(out), IngestConfig(split=Split.COLUMN))


def time_and_memory(scratch: Path) -> dict[str, Any]:
    """Distil 500 users in a running Ray session, in as few steps as 99 % of full quality needs, up to publication."""
    run = ("benchmarks.distillation", "--dataset", str(scratch / "ml-1m"), "--program")
    return {"runs": [in_subprocess(*run, "short") for _ in SEEDS], **in_subprocess(*run, "watched")}


SHORT_STEPS = 50


def _short(dataset: str) -> dict[str, Any]:
    from infrec.pipeline.data import Dataset
    from infrec.pipeline.distillation import DistillConfig

    config = DistillConfig(steps=SHORT_STEPS, validate_every=SHORT_STEPS // 2)
    return _made_and_evaluated(Dataset.open(dataset), config)


def _watched(dataset: str) -> dict[str, Any]:
    from infrec.pipeline.cluster import ray_session

    with ray_session(), peak_memory() as peak:
        _short(dataset)
    return {
        "peak_mb_above_idle_ray": peak.above_baseline // 10**6,
        "peak_mb_of_driver_and_workers": peak.of_the_job // 10**6,
    }


LARGE_OPTIONS = {"steps": 30, "validate_every": 15, "learning_rate": 0.1}
LARGE_NYSTROM = 13.07
"""nDCG@10 of 1,000 landmarks and the paper's kernel on the same test users: results/nystrom.json."""


def size(scratch: Path) -> dict[str, Any]:
    """Budget 500 on a log of Netflix's size: time, peak and the share of Nyström's nDCG@10."""
    run = ("benchmarks.distillation", "--dataset", str(scratch / "large"), "--program", "size")
    return {"synthetic": True, **LARGE, **LARGE_OPTIONS, **in_subprocess(*run)}


def _at_size(dataset: str) -> dict[str, Any]:
    import ray

    from infrec.pipeline.cluster import ray_session
    from infrec.pipeline.data import Dataset
    from infrec.pipeline.distillation import DistillConfig, plan_summarise
    from infrec.pipeline.models import HISTORY

    data, config = Dataset.open(dataset), DistillConfig(**LARGE_OPTIONS)
    times: list[float] = []
    with ray_session(), tempfile.TemporaryDirectory() as scratch:
        ray.get(ray.remote(lambda: None).remote())  # idle, but up
        started = time.perf_counter()
        with peak_memory(WHILE_TIMED) as peak:
            summary = made(data, Path(scratch), config, report=noting_steps(times))
        seconds = time.perf_counter() - started
        figures = {
            "plan_mb": plan_summarise(data, config).peak // 10**6,
            "peak_mb": peak.highest // 10**6,
            "peak_mb_above_idle_ray": peak.above_baseline // 10**6,
            "seconds": round(seconds, 1),
            "seconds_of_a_step": round(statistics.median(b - a for a, b in pairwise(times)), 2),
            "validation": [[row["step"], row["lambda"], row["nDCG@10"]] for row in summary.table(HISTORY).to_pylist()],
            **figures_on_test(summary, data),
        }
    return {**figures, "percent_of_nystrom": 100 * figures["test"]["nDCG@10"] / LARGE_NYSTROM}


def logs(scratch: Path) -> dict[str, Any]:
    """Budget 500 on three logs, against the ∞-AE with the paper's kernel on all users in the same run.

    Quality, seconds, and the bytes of summary and dataset: with defaults (three seeds), and with own labels (one).
    """
    from infrec.pipeline.data import Dataset
    from infrec.pipeline.distillation import DistillConfig, Labels

    figures = {}
    for name in LOGS:
        dataset, full = Dataset.open(scratch / name), _full(scratch, name)
        runs = [_made_and_evaluated(dataset, DistillConfig.for_budget(500, seed=seed)) for seed in SEEDS]
        size = sum(record.size for record in dataset.manifest.files.values())
        figures[name] = {
            "full": {metric: full[metric] for metric in MEANT},
            "500": _summed_up(runs, full),
            "own labels": _made_and_evaluated(dataset, DistillConfig.for_budget(500, labels=Labels.OWN)),
            "dataset_kb": size // 1000,
            "summary_of_dataset": max(run["kb"] for run in runs) * 1000 / size,
        }
    return figures


def _full(scratch: Path, name: str) -> Any:
    """Test metrics of the ∞-AE with the paper's kernel on all users."""
    from infrec.pipeline.cluster import open_pool, ray_session
    from infrec.pipeline.data import Dataset
    from infrec.pipeline.models import PAPER_EXPONENTS, InfiniteAEConfig
    from infrec.pipeline.serving import evaluate
    from infrec.pipeline.solvers import fit_exact
    from infrec.pipeline.storage import ArtefactWriter, Kind

    dataset, out = Dataset.open(scratch / name), f"{scratch}/{name}-infinite-ae"
    with ray_session(), open_pool() as pool:
        with ArtefactWriter(out, Kind.MODEL, purpose={}, overwrite=True) as writer:
            fit_exact(dataset, writer, InfiniteAEConfig(exponents=PAPER_EXPONENTS), pool)
        return evaluate(out, dataset, pool).metrics


def noting_steps(times: list[float]) -> Callable[..., None]:
    """A report that notes when each step of the learning ended."""

    def report(phase: str, *_: object) -> None:
        if phase == "Steps":
            times.append(time.perf_counter())

    return report


def _summed_up(runs: list[dict[str, Any]], full: Any) -> dict[str, Any]:
    means = {name: statistics.mean(run[name] for run in runs) for name in MEANT}
    return {
        "mean": means,
        "spread": {name: statistics.stdev(run[name] for run in runs) for name in MEANT},
        "percent_of_full": {name: 100 * means[name] / full[name] for name in MEANT},
        "runs": runs,
    }


def _made_and_evaluated(dataset: Any, config: Any) -> dict[str, Any]:
    """Test metrics of a summary, with the seconds from a running Ray session to its publication."""
    from infrec.pipeline.cluster import open_pool, ray_session
    from infrec.pipeline.serving import evaluate

    with ray_session(), tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        summary = made(dataset, Path(scratch), config)
        seconds = time.perf_counter() - started
        with open_pool() as pool:
            metrics = evaluate(str(summary.location), dataset, pool).metrics
    return {
        "seed": config.seed,
        **{name: metrics[name] for name in ("HR@10", "HR@100", "nDCG@10", "PSP@10")},
        "lambda": summary.manifest.config["lambda"],
        "seconds": round(seconds, 1),
        "kb": sum(record.size for record in summary.manifest.files.values()) // 1000,
    }


def made(dataset: Any, folder: Path, config: Any, **options: Callable[..., None]) -> Any:
    """Make a summary in this folder, with actors of its own."""
    from infrec.pipeline.cluster import open_pool, ray_session
    from infrec.pipeline.distillation import summarise
    from infrec.pipeline.storage import ArtefactWriter, Kind

    with ray_session(), open_pool() as pool, ArtefactWriter(folder / "summary", Kind.SUMMARY, purpose={}) as writer:
        return summarise(dataset, writer, config, pool, **options)  # type: ignore[arg-type]


_FIGURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "time": time_and_memory,
    "logs": logs,
    "size": size,
}
_PROGRAMS: dict[str, Callable[[str], dict[str, Any]]] = {
    "short": _short,
    "watched": _watched,
    "size": _at_size,
}

if __name__ == "__main__":
    main()
