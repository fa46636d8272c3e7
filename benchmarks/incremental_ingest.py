"""A dataset of 10M rows that grows by 1 %, against ingest of all from scratch, and by 1 % on fourteen nights.

    python -m benchmarks.incremental_ingest [--scratch DIR] [--out benchmarks/results/incremental_ingest.json]

A synthetic log of 100,000 rows a file (`infrec generate`): the first hundred are the base, each of the next fourteen
is a night, and the last 22 come at once, which is when the shards are written anew. A night's rows are anyone's, one
or two a user: the most users that so many rows can touch. One row in twenty is of a new user, one in a hundred
of a new item. Timed in a running Ray session; growth and ingest take turns. The floor of a growth is that
every shard is read once, with its checksum. Exits with 1 where growth takes more than its goal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import environment, peak_memory
from infrec.pipeline.cluster import map_threads, ray_session
from infrec.pipeline.data import PARTS, Dataset, GenerateConfig, generate_log
from infrec.pipeline.ingest import IngestConfig, Split, grow, ingest
from infrec.pipeline.ingest.growth.grow import Grown

CPUS = 2
ROWS_A_FILE, BASE, NIGHTS, AT_ONCE = 100_000, 100, 14, 22
LOG = GenerateConfig(
    rows=ROWS_A_FILE * (BASE + NIGHTS + AT_ONCE), users=200_000, items=20_000, files=BASE + NIGHTS + AT_ONCE
)
NEW_USERS, NEW_ITEMS = 0.05, 0.01  # of a night's rows
PAIRS = 3
GOAL = 0.1  # of the seconds from scratch
CONFIG = IngestConfig(split=Split.STABLE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, help="where logs and datasets lie for the time of the run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/incremental_ingest.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch, ray_session(cpus=CPUS):
        report = {**environment(), "synthetic": True, "cpus": CPUS, **_measure(Path(scratch))}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0 if report["one_percent"]["median_ratio"] <= GOAL else 1


def _measure(scratch: Path) -> dict[str, Any]:
    log = _log(scratch / "log")
    base = ingest(log[:BASE], str(scratch / "0"), CONFIG)
    night = log[BASE : BASE + 1]

    def once() -> Grown:
        return grow(base, night, str(scratch / "grown"), str(scratch / "fresh"), CONFIG, overwrite=True)

    def from_scratch() -> Dataset:
        return ingest(log[: BASE + 1], str(scratch / "whole"), CONFIG, overwrite=True)

    once()
    pairs = [(_seconds(once), _seconds(from_scratch)) for _ in range(PAIRS)]
    with peak_memory() as peak:
        grown = once()
    whole = from_scratch()
    if any(grown.dataset.manifest.counts[name] != whole.manifest.counts[name] for name in ("users", "items", *PARTS)):
        raise RuntimeError(f"{grown.dataset.manifest.counts} is not {whole.manifest.counts}")
    return {
        "one_percent": {
            "rows": grown.rows,
            "added": dict(grown.added),
            "users_touched": _touched(grown.dataset),
            "fresh_users": grown.fresh.num_users,
            "grow_seconds": [round(ours, 3) for ours, _ in pairs],
            "from_scratch_seconds": [round(theirs, 3) for _, theirs in pairs],
            "median_ratio": round(median(ours / theirs for ours, theirs in pairs), 4),
            "floor_seconds": round(median(_read(base) for _ in range(PAIRS)), 3),
            "peak_mb_above_idle": round(peak.above_baseline / 1e6),
        },
        **_nights(scratch, base, log),
    }


def _nights(scratch: Path, base: Dataset, log: list[str]) -> dict[str, Any]:
    """Seconds of one growth after another, and of reading what came of it; then many rows at once."""
    dataset, seconds = base, []

    def next_night(files: list[str], out: str) -> Dataset:
        return grow(dataset, files, str(scratch / out), str(scratch / f"fresh-{out}"), CONFIG).dataset

    for night in range(1, NIGHTS + 1):
        started = time.perf_counter()
        dataset = next_night(log[BASE + night - 1 : BASE + night], str(night))
        seconds.append(round(time.perf_counter() - started, 3))
    read = {"of_the_base": _read(base), f"after_{NIGHTS}_nights": _read(dataset)}
    started = time.perf_counter()
    rest = next_night(log[BASE + NIGHTS :], "rest")
    many = time.perf_counter() - started
    whole = _seconds(lambda: ingest(log, str(scratch / "whole"), CONFIG, overwrite=True))
    return {
        "nights_seconds": seconds,
        "read_all_seconds": {name: round(value, 3) for name, value in read.items()},
        "many_at_once": {
            "rows": ROWS_A_FILE * AT_ONCE,
            "shards_written_anew": not rest.has_additions,
            "seconds": round(many, 3),
            "from_scratch_seconds": round(whole, 3),
        },
    }


def _log(folder: Path) -> list[str]:
    """The files of the log, with new users and items in those after the base."""
    files = [str(folder / name) for name in sorted(generate_log(str(folder), LOG).manifest.files)]
    for night, file in enumerate(files[BASE:], start=1):
        table = pq.read_table(file)
        rng = np.random.default_rng(night)
        for name, share, first in (("user_id", NEW_USERS, LOG.users), ("item_id", NEW_ITEMS, LOG.items)):
            ids = table[name].to_numpy().copy()
            new = rng.random(len(ids)) < share
            ids[new] = first + rng.integers(100 * night if name == "user_id" else 10 * night, size=new.sum())
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(ids))
        pq.write_table(table, file)
    return files


def _touched(dataset: Dataset) -> int:
    names = (name for name in dataset.manifest.files if name.startswith("additions"))
    return sum(dataset.artefact.table(name, ["row"]).num_rows for name in names)


def _read(dataset: Dataset) -> float:
    """Seconds of reading every shard, in threads as growth reads them."""
    return _seconds(lambda: [len(table) for table in map_threads(dataset.shard_table, range(dataset.num_shards))])


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
