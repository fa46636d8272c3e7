"""Resummarization, night after night: a warm start against a cold one, garbage, and kills.

    python -m benchmarks.resummarize [--only warm nights kills] [--logs ../shared/data] [--scratch DIRECTORY]

The log is ML-1M's real interactions in an order of our own, as they have no times: users and items come in at random
places, an interaction follows when both are there, so later nights have other users and other items. Half of it
is there at first, the rest comes in 14 nights. Each figure goes into results/resummarize.json under its own name. With
--scratch, what is in it is not made again: a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import environment
from infrec.jobs.cli import main as infrec
from infrec.pipeline.cluster import open_pool, ray_session
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import DistillConfig, distill
from infrec.pipeline.nightly import State
from infrec.pipeline.serving import evaluate
from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind

NIGHTS, GARBAGE_AFTER = 14, 7
BUDGET, STEPS = 200, 100
METRIC = "nDCG@10"
SAME = 0.995
"""The part of the cold run's best validation that counts as the same. The last half percent is the luck of the best of
many."""
KILLS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=_FIGURES, default=list(_FIGURES), help="some figures")
    parser.add_argument("--logs", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scratch", type=Path, help="where states lie for the time of the run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/resummarize.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = arguments.scratch or Path(temporary)
        for figure in arguments.only:
            folder = scratch / figure
            folder.mkdir(parents=True, exist_ok=True)
            with ray_session():
                result = {**environment(), **_FIGURES[figure](folder, arguments.logs)}
            known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
            arguments.out.write_text(json.dumps({**known, figure: result}, indent=1) + "\n")
            print(json.dumps({figure: result}, indent=1), flush=True)


def drifting_log(logs: Path, *, seed: int = 0) -> list[pa.Table]:
    """ML-1M in the order of ½ · place of the user + ½ · place of the item + noise: half of it, then a part a night."""
    table = pq.read_table(logs / "ml-1m.parquet", columns=["user_id", "item_id"])
    generator = np.random.default_rng(seed)

    def place(column: str) -> np.ndarray:
        ids, index = np.unique(table[column].to_numpy(), return_inverse=True)
        places: np.ndarray = generator.permutation(len(ids)) / len(ids)
        return places[index]

    time = 0.5 * place("user_id") + 0.5 * place("item_id") + 0.1 * generator.standard_normal(len(table))
    ordered = table.take(pa.array(np.argsort(time)))
    bounds = [len(table) // 2 + len(table) // 2 * night // NIGHTS for night in range(NIGHTS + 1)]
    return [
        ordered[:stop] if not start else ordered[start:stop] for start, stop in zip([0, *bounds], bounds, strict=False)
    ]


def warm(folder: Path, logs: Path) -> dict[str, Any]:
    """Steps to the same validation, from nothing and from last night's summary, with the options of each."""
    night = _published(folder, drifting_log(logs)[:2])
    versions = night / "versions"
    dataset = Dataset.open(str(versions / "000002" / "dataset"))
    before = Artefact.open(str(versions / "000001" / "summary"), Kind.SUMMARY)
    cold = DistillConfig.for_budget(BUDGET, seed=1)
    runs = {"cold": (cold, None, 5), "warm": (cold.warm(), before, 1)}
    result: dict[str, Any] = {"new rows, of all": 1 / (NIGHTS + 1)}
    courses = {}
    for name, (config, start, every) in runs.items():
        config = DistillConfig(**{**vars(config), "validate_every": every, "patience": 10**6})
        validations: list[tuple[int, float]] = []
        started = time.perf_counter()
        summary = _distilled(
            dataset, folder / name, config, start, lambda row, kept=validations: kept.append((row["step"], row[METRIC]))
        )
        with open_pool() as pool:
            on_test = evaluate(str(summary.location), dataset, pool).metrics[METRIC]
        courses[name] = validations
        result[name] = {"steps": config.steps, "seconds": time.perf_counter() - started, f"test {METRIC}": on_test}
    bar = SAME * max(value for _, value in courses["cold"])
    for name, validations in courses.items():
        reached = next((step for step, value in validations if value >= bar), None)
        result[name] |= {"steps to the same quality": reached, "validations": validations}
    warm_steps, cold_steps = (result[name]["steps to the same quality"] for name in ("warm", "cold"))
    result["ratio"] = warm_steps / cold_steps if warm_steps else None
    result["ratio to all steps of the cold run"] = warm_steps / cold.steps if warm_steps else None
    return result


def nights(folder: Path, logs: Path) -> dict[str, Any]:
    """Each night's summary against one that is made from nothing that night; and a night of garbage in the middle."""
    tables, results = drifting_log(logs), folder / "nights.json"
    done = json.loads(results.read_text()) if results.exists() else []
    state, log = folder / "state", folder / "log"
    for night, table in enumerate(tables):
        if night < len(done):
            continue
        if night == GARBAGE_AFTER + 1 and not any("garbage" in row for row in done):
            done[-1]["garbage"] = _garbage_night(table, log, state)
            results.write_text(json.dumps(done))
        pq.write_table(table, _folder(log) / f"night-{night:02d}.parquet")
        started = time.perf_counter()
        code = _resummarize(log, state)
        row: dict[str, Any] = {"night": night, "rows": len(table), "exit code": code}
        row["seconds"] = time.perf_counter() - started
        if night:
            row |= _against_scratch(state, folder / "scratch", night)
        done.append(row)
        results.write_text(json.dumps(done))
        print(json.dumps(row), flush=True)
    ratios = [row["ratio"] for row in done if "ratio" in row]
    return {"budget": BUDGET, "steps": STEPS, "lowest ratio": min(ratios), "nights": done}


def _against_scratch(state: Path, scratch: Path, night: int) -> dict[str, Any]:
    version = State.at(str(state)).find().version
    assert version
    config = DistillConfig.for_budget(BUDGET, seed=night, steps=STEPS)
    started = time.perf_counter()
    out = scratch / str(night)
    rival = Artefact.open(str(out), Kind.SUMMARY) if out.exists() else _distilled(version.dataset, out, config, None)
    seconds = time.perf_counter() - started
    with open_pool() as pool:
        ours, theirs = (
            evaluate(str(summary.location), version.dataset, pool).metrics[METRIC]
            for summary in (version.summary, rival)
        )
    return {"warm": ours, "from scratch": theirs, "ratio": ours / theirs, "seconds from scratch": seconds}


def _garbage_night(table: pa.Table, log: Path, state: Path) -> dict[str, Any]:
    """The next night's rows with their items shuffled; then the file is taken away."""
    before = State.at(str(state)).pointed_at()
    items = np.random.default_rng(0).permutation(table["item_id"].to_numpy())
    file = log / "garbage.parquet"
    pq.write_table(table.set_column(1, "item_id", pa.array(items)), file)
    code = _resummarize(log, state)
    file.unlink()
    *_, row = (json.loads(path.read_text()) for path in sorted((state / "history").iterdir()))
    return {"exit code": code, "kept": State.at(str(state)).pointed_at() == before, **row}


def kills(folder: Path, logs: Path) -> dict[str, Any]:
    """kill -9 at random moments of a run on a small log, and the next run; then two runs at once, as often."""
    tables = [table[:12_000] for table in drifting_log(logs)[:2]]
    results = folder / "kills.json"
    done = json.loads(results.read_text()) if results.exists() else []
    begun = _published(folder / "begun", tables[:1], steps=20, budget=50)
    log = folder / "begun" / "log"
    if not done:
        pq.write_table(tables[1], log / "night-1.parquet")
        state = _copy(begun, folder / "undisturbed")
        started = time.perf_counter()
        assert subprocess.run(_command(log, state)).returncode == 0
        done.append({"seconds undisturbed": time.perf_counter() - started})
    moments = random.Random(0)
    fractions = [moments.random() for _ in range(KILLS)]
    for number, fraction in list(enumerate(fractions))[len(done) - 1 :]:
        state = _copy(begun, folder / f"killed-{number}")
        run = subprocess.Popen(_command(log, state), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = fraction * done[0]["seconds undisturbed"]
        time.sleep(after)
        run.send_signal(signal.SIGKILL)
        ended = run.wait()
        found = State.at(str(state)).find()
        whole = found.version is not None and found.damage is None
        was = found.version.name if found.version else None
        code = infrec(_command(log, state)[3:])
        version = State.at(str(state)).find().version
        succeeded = code == 0 and version is not None and version.dataset.manifest.counts["rows"] == 24_000
        row = {"after": after, "killed": ended == -9, "whole": whole, "version": was, "next run succeeds": succeeded}
        done.append(row)
        results.write_text(json.dumps(done))
        print(json.dumps(row), flush=True)
    pairs = []
    for number in range(3):
        state = _copy(begun, folder / f"pair-{number}")
        pair = [subprocess.Popen([*_command(log, state), "--cpus", "1"]) for _ in range(2)]
        codes = sorted(run.wait() for run in pair)
        published = [row for row in (state / "history").iterdir() if json.loads(row.read_text())["version"] != "000001"]
        pairs.append({"exit codes": codes, "published": len(published)})
    good = sum(row["whole"] and row["next run succeeds"] for row in done[1:])
    return {"of": KILLS, "whole, and the next run succeeds": good, "two at once": pairs, "runs": done}


def _published(folder: Path, tables: list[pa.Table], *, steps: int = 2 * STEPS, budget: int = BUDGET) -> Path:
    """A state after these nights."""
    log, state = folder / "log", folder / "state"
    for night, table in enumerate(tables):
        if not (log / f"night-{night}.parquet").exists():
            pq.write_table(table, _folder(log) / f"night-{night}.parquet")
            assert _resummarize(log, state, steps=steps, budget=budget) == 0
    return state


def _resummarize(log: Path, state: Path, *, steps: int = STEPS, budget: int = BUDGET) -> int:
    options = ["--budget", str(budget), "--steps", str(steps), "--keep", "20"]
    return infrec(["resummarize", "--logs", str(log), "--state", str(state), *options])


def _command(log: Path, state: Path) -> list[str]:
    job = [sys.executable, "-m", "jobs", "resummarize", "--logs", str(log), "--state", str(state)]
    return [*job, "--budget", "50", "--steps", "20"]


def _distilled(
    dataset: Dataset,
    out: Path,
    config: DistillConfig,
    start: Artefact | None,
    on_validation: Callable[..., Any] = lambda row: None,
) -> Artefact:
    with open_pool() as pool:
        writer = ArtefactWriter(str(out), Kind.SUMMARY, purpose={}, overwrite=True)
        return distill(dataset, writer, config, pool, warm_start=start, on_validation=on_validation)


def _copy(state: Path, to: Path) -> Path:
    subprocess.run(["rm", "-rf", str(to)], check=True)
    subprocess.run(["cp", "-r", str(state), str(to)], check=True)
    return to


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


_FIGURES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {"warm": warm, "nights": nights, "kills": kills}

if __name__ == "__main__":
    main()
