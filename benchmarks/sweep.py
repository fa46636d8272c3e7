"""Budget sweeps on ML-1M: the paper's Figures 1 and 2 with one command each, and what Ray Tune costs.

    python -m benchmarks.sweep [--only budgets noise overhead] [--logs ../shared/data] [--reports FOLDER]

Each figure goes into results/sweep.json under its own name; --reports keeps the reports that the sweeps wrote.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measure import environment, in_subprocess

BUDGETS = "10,20,40,100,200,500,1600"
NOISE = "0.1,0.3,0.5"
NOISE_BUDGET = "200"
OVERHEAD = {"budgets": (40,), "seeds": 1}
"""A sweep of all methods, whose trials take from 3 to 50 seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=_FIGURES, default=list(_FIGURES), help="some figures")
    parser.add_argument("--logs", type=Path, default=Path("../shared/data"))
    parser.add_argument("--reports", type=Path, help="where the reports are kept; default: nowhere")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sweep.json"))
    parser.add_argument("--program", choices=_PROGRAMS, help="run one program on --dataset by itself")
    parser.add_argument("--dataset")
    arguments = parser.parse_args()
    if arguments.program:
        print(json.dumps(_PROGRAMS[arguments.program](arguments.dataset)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        dataset = Path(scratch) / "ml-1m"
        _infrec("ingest", str(arguments.logs / "ml-1m.parquet"), "--out", str(dataset), "--split", "column")
        for figure in arguments.only:
            result = {**environment(), **_FIGURES[figure](dataset, arguments.reports or Path(scratch))}
            known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
            arguments.out.write_text(json.dumps({**known, figure: result}, indent=1) + "\n")
            print(json.dumps({figure: result}, indent=1), flush=True)


def budgets(dataset: Path, reports: Path) -> dict[str, Any]:
    """Figure 1: six methods, seven budgets, three seeds."""
    return _swept(dataset, reports / "budgets", "--budgets", BUDGETS)


def noise(dataset: Path, reports: Path) -> dict[str, Any]:
    """Figure 2: what is kept of clean quality, by 200 synthetic users and by all users."""
    return _swept(dataset, reports / "noise", "--budgets", NOISE_BUDGET, "--methods", "distill-cf", "--noise", NOISE)


def overhead(dataset: Path, reports: Path) -> dict[str, Any]:
    """The same trials under Tune in a running Ray session, and by two processes that know nothing of Ray."""
    run = ("benchmarks.sweep", "--dataset", str(dataset), "--program")
    pairs = [[in_subprocess(*run, program)["seconds"] for program in ("under-tune", "bare")] for _ in range(2)]
    return {"under Tune and bare, seconds": pairs, "ratios": [tune / bare for tune, bare in pairs]}


def _swept(dataset: Path, out: Path, *options: str) -> dict[str, Any]:
    started = time.perf_counter()
    told = json.loads(_infrec("sweep", str(dataset), "--out", str(out), "--json", *options))
    columns = ("method", "budget", "noise", "seed", "seconds", "training_seconds", "bytes", "validation nDCG@10")
    columns += ("test nDCG@10", "test HR@10")
    return {
        "command": " ".join(("infrec sweep", *options)),
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "sentence": told["sentence"],
        "trials": [{name: trial[name] for name in columns} for trial in told["trials"]],
    }


def _infrec(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _under_tune(dataset: str) -> dict[str, Any]:
    import ray

    from infrec.pipeline.cluster import ray_session
    from infrec.pipeline.study.placement import Share
    from infrec.pipeline.study.tuning import run_trials

    bench, trials = _bench_and_trials(dataset)
    with ray_session():
        ray.get(ray.remote(lambda: None).remote())  # idle, but up
        started = time.perf_counter()
        run_trials(
            trials,
            replace(bench, dataset=bench.dataset.shared()),
            phase="Trials",
            share=Share(),
            early_stopping=False,
            report=lambda *_: None,
        )
        return {"seconds": time.perf_counter() - started}


def _bare(dataset: str) -> dict[str, Any]:
    from infrec.pipeline.cluster.sessions import WORKER_ENVIRONMENT

    bench, trials = _bench_and_trials(dataset)
    os.environ.update(WORKER_ENVIRONMENT)
    started = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as processes:
        list(processes.map(bench.run, sorted(trials, key=lambda trial: -trial.cost)))
    return {"seconds": time.perf_counter() - started}


def _bench_and_trials(dataset: str) -> tuple[Any, list[Any]]:
    from infrec.pipeline.data import Dataset
    from infrec.pipeline.serving import Learner
    from infrec.pipeline.solvers import Solver
    from infrec.pipeline.storage import Location
    from infrec.pipeline.study.bench import Bench, paper_search
    from infrec.pipeline.study.config import SweepConfig

    data, config = Dataset.open(dataset), SweepConfig(**OVERHEAD)
    bench = Bench(
        dataset=data,
        noisy={},
        work=Location.of(tempfile.mkdtemp(dir=Path(dataset).parent)),
        solver=Solver.EXACT,
        search=paper_search(config.select),
        learners=(Learner.INFINITE_AE,),
    )
    return bench, list(config.points({}, all_users=data.num_training_users))


_FIGURES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "budgets": budgets,
    "noise": noise,
    "overhead": overhead,
}
_PROGRAMS: dict[str, Callable[[str], dict[str, Any]]] = {"under-tune": _under_tune, "bare": _bare}

if __name__ == "__main__":
    main()
