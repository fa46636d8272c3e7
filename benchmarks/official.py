"""The code published with the paper, run as it is, and ours, in turn on the same machine.

    python -m benchmarks.official --infinite-ae CHECKOUT --distill-cf CHECKOUT --python PYTHON [--logs ml-1m.parquet]

The checkouts are those of github.com/noveens/infinite_ae_cf and github.com/noveens/distill_cf. PYTHON is that of an
environment with jax 0.4.23, neural-tangents, h5py, numba, scipy < 1.13 and numpy < 2. One argument is renamed as that
JAX wants it: `sym_pos=True` is `assume_a="pos"`. Nothing else is changed. Both have all the cores of the machine.

infinite-ae  ∞-AE on ML-1M: six λ, and the test, as whole processes from the log to the metrics
distill-cf   a step of Distill-CF on ML-1M: budget 500, T = 200, all users, the official objective
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.distillation import made, noting_steps
from benchmarks.measure import environment, in_subprocess

STEPS = 3
"""The steps of the official code, the first of which compiles."""
OUR_STEPS = 25

_RENAMED = """
import jax, jax.scipy.linalg
solve = jax.scipy.linalg.solve
jax.scipy.linalg.solve = lambda a, b, sym_pos: solve(a, b, assume_a="pos" if sym_pos else "gen")
"""
_MAIN = f"{_RENAMED}\nimport runpy\nrunpy.run_path('main.py', run_name='__main__')"
_STEPS = f"""{_RENAMED}
import json, time
import numpy as np
from data import Dataset
from distill import get_update_functions, initialize
from hyper_params import hyper_params
np.random.seed(hyper_params["seed"])
data = Dataset(hyper_params)
state, get_params, update, _, _, zeros = get_update_functions(data.hyper_params, initialize(data.hyper_params, data))
key = jax.random.PRNGKey(hyper_params["seed"])
accumulated, seconds = zeros(get_params(state)), []
for number in range(1, {STEPS} + 1):
    started = time.perf_counter()
    made = update(number, state, get_params(state), accumulated, data.sample_training_batch(), key, reg=0.001)
    state, accumulated, key = jax.block_until_ready(made)
    seconds.append(time.perf_counter() - started)
print(json.dumps(seconds[1:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infinite-ae", type=Path, help="a checkout")
    parser.add_argument("--distill-cf", type=Path, help="a checkout")
    parser.add_argument("--python", help="the interpreter that runs them")
    parser.add_argument("--logs", default="../shared/data/ml-1m.parquet")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/official.json"))
    parser.add_argument("--our-steps", metavar="DATASET", help="time our steps on a dataset, and nothing else")
    arguments = parser.parse_args()
    if arguments.our_steps:
        print(json.dumps(_our_steps(arguments.our_steps)))
        return
    if not arguments.python or not (arguments.infinite_ae or arguments.distill_cf):
        parser.error("give at least one checkout, and --python")
    report = environment()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.infinite_ae:
            report["infinite-ae"] = _compared(
                lambda: _official_fit(arguments.python, arguments.infinite_ae),
                lambda: _our_fit(arguments.logs, Path(scratch)),
                arguments.runs,
            )
        if arguments.distill_cf:
            _infrec("ingest", arguments.logs, "--out", f"{scratch}/data", "--split", "column")
            report["distill-cf step"] = _compared(
                lambda: _official_steps(arguments.python, arguments.distill_cf),
                lambda: in_subprocess("benchmarks.official", "--our-steps", f"{scratch}/data"),
                arguments.runs,
            )
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _compared(official: Callable[[], dict[str, Any]], ours: Callable[[], dict[str, Any]], runs: int) -> dict[str, Any]:
    """Run both in turn. Each returns its "seconds"."""
    pairs = [(official(), ours()) for _ in range(runs)]
    ratios = [one["seconds"] / other["seconds"] for one, other in pairs]
    return {
        "times_faster": {"median": round(statistics.median(ratios), 2), "all": [round(ratio, 2) for ratio in ratios]},
        "official": [one for one, _ in pairs],
        "ours": [other for _, other in pairs],
    }


def _official(python: str, program: str, checkout: Path) -> list[str]:
    """Run a program in a checkout, and return the lines that it prints."""
    unbound = {name: value for name, value in os.environ.items() if name != "NPROC"}
    command = [python, "-c", program]
    finished = subprocess.run(command, check=True, cwd=checkout, env=unbound, stdout=subprocess.PIPE, text=True)
    return finished.stdout.splitlines()


def _official_fit(python: str, checkout: Path) -> dict[str, Any]:
    started = time.perf_counter()
    lines = _official(python, _MAIN, checkout)
    seconds = time.perf_counter() - started
    by_its_own_clock = float(re.findall(r"time = +([\d.]+)", lines[-1])[0])
    metrics = {name: float(value) for name, value in re.findall(r"\| (\w+@\d+|AUC) = ([\d.]+)", lines[-1])}
    return {"seconds": round(seconds, 2), "seconds by its own clock": by_its_own_clock, "test": metrics}


def _our_fit(logs: str, scratch: Path) -> dict[str, Any]:
    """The paper's kernel: ingest, fit and evaluate, three commands."""
    data, model = f"{scratch}/again", f"{scratch}/model"
    started = time.perf_counter()
    _infrec("ingest", logs, "--out", data, "--split", "column", "--overwrite")
    ingested = time.perf_counter()
    _infrec("fit", data, "--out", model, "--normalize", "none", "--overwrite")
    fitted = time.perf_counter()
    evaluated = json.loads(_infrec("evaluate", model, "--data", data, "--json"))
    ended = time.perf_counter()
    return {
        "seconds": round(ended - started, 2),
        "ingest, fit, evaluate": [
            round(seconds, 2) for seconds in (ingested - started, fitted - ingested, ended - fitted)
        ],
        "test": evaluated["evaluations"][0]["metrics"],
    }


def _infrec(*arguments: str) -> str:
    """Run an `infrec` command, and return the last line that it prints."""
    command = [sys.executable, "-m", "infrec.jobs", *arguments]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return finished.stdout.strip().splitlines()[-1]


def _official_steps(python: str, checkout: Path) -> dict[str, Any]:
    return _of_steps(json.loads(_official(python, _STEPS, checkout)[-1]))


def _of_steps(seconds: list[float]) -> dict[str, Any]:
    return {"seconds": round(statistics.median(seconds), 3), "steps": [round(one, 3) for one in seconds]}


def _our_steps(dataset: str) -> dict[str, Any]:
    """The official objective on all users; from one report of a step to the next."""
    from infrec.pipeline.data import Dataset
    from infrec.pipeline.distillation import DistillConfig, Labels, Objective

    config = DistillConfig(
        objective=Objective.OFFICIAL,
        labels=Labels.OWN,
        user_weight=0.0,
        sharpness=1.0,
        batch=10**9,
        steps=OUR_STEPS,
        validate_every=OUR_STEPS,
    )
    times: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        made(Dataset.open(dataset), Path(scratch), config, report=noting_steps(times))
    return _of_steps([later - earlier for earlier, later in pairwise(times)][2:])


if __name__ == "__main__":
    main()
