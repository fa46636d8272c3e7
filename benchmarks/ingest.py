"""Ingest of synthetic logs: rows a second, whether peak memory grows with the log, and polars beside it.

    python -m benchmarks.ingest [--scratch DIR] [--out benchmarks/results/ingest.json]

Logs of up to 10M rows are ingested twice in a fresh Ray session: first while Ray's workers still have to start,
then with them running. Peak memory is that of the first, above the idle session. A log of 100M rows is generated and
ingested once, with the peak of all processes. Ours, in a running session, and one process of polars (where it is
installed: `pip install '.[bench]'`) take the same 10M rows in turn. Exits with 1 where a figure misses its floor.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from benchmarks.measure import WHILE_TIMED, environment, in_subprocess, peak_memory
from infrec.pipeline.cluster import ray_session
from infrec.pipeline.data import GenerateConfig, generate_log
from infrec.pipeline.ingest import IngestConfig, ingest

CPUS = 2
FULL = 10_000_000
SIZES = (FULL // 4, FULL // 2, FULL)
ROWS_A_USER, ITEMS = 50, 20_000
ROWS_A_SECOND_FLOOR = 1_000_000  # of 10M rows, integer and string ids, workers' start included
GROWTH_CEILING = 1.3  # of the peak, from the smallest log to one four times as large
NETFLIX = GenerateConfig(rows=100_000_000, users=480_000, items=17_770, string_ids=True, dirt=0.01)  # in its shape
LARGE_ROWS_A_SECOND_FLOOR, LARGE_PEAK_CEILING_MB = 800_000, 4000  # all processes, Ray's included
PAIRS = 5
POLARS_FLOOR = 0.5  # our rows a second over those of polars


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, help="where logs and datasets lie for the time of the run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ingest.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        generated = {}
        with ray_session(cpus=CPUS):
            for rows, string_ids in [*((rows, False) for rows in SIZES), (FULL, True)]:
                name = f"{rows}{' string ids' if string_ids else ''}"
                generated[name] = _generate(Path(scratch) / name, rows, string_ids)
        dataset = Path(scratch) / "dataset"
        ingested = {name: _ingest_twice(Path(scratch) / name, dataset) for name in generated}
        command_seconds = _command(Path(scratch) / str(FULL), dataset)
        logs = [Path(scratch) / name for name in (str(FULL), f"{FULL} string ids")]
        polars = _beside_polars(logs, dataset) if importlib.util.find_spec("polars") else "not installed"
        large = _large(Path(scratch) / "large", dataset)

    peaks = [ingested[str(rows)]["peak_mb_above_idle_ray"] for rows in SIZES]
    report = {
        **environment(),
        "synthetic": True,
        "cpus": CPUS,
        "generate_rows_a_second": generated,
        "ingest": ingested,
        "peak_growth": round(peaks[-1] / peaks[0], 2),
        "command_10m_rows": {
            "seconds": round(command_seconds, 1),
            "rows_a_second": round(FULL / command_seconds),
        },
        "beside_polars": polars,
        "100m_rows": large,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    full = [ingested[str(FULL)], ingested[f"{FULL} string ids"]]
    fast = all(run["rows_a_second_at_first"] >= ROWS_A_SECOND_FLOOR for run in full)
    fast &= large["ingest_rows_a_second"] >= LARGE_ROWS_A_SECOND_FLOOR
    fast &= isinstance(polars, str) or all(pairs["median_ratio"] >= POLARS_FLOOR for pairs in polars.values())
    small = report["peak_growth"] <= GROWTH_CEILING and large["ingest_peak_mb"] <= LARGE_PEAK_CEILING_MB
    return 0 if fast and small else 1


def _generate(log: Path, rows: int, string_ids: bool) -> int:
    """Write the log; rows a second."""
    config = GenerateConfig(rows=rows, users=rows // ROWS_A_USER, items=ITEMS, string_ids=string_ids)
    started = time.perf_counter()
    generate_log(str(log), config)
    return round(rows / (time.perf_counter() - started))


def _ingest_twice(log: Path, out: Path) -> dict[str, Any]:
    with ray_session(cpus=CPUS):
        ray.get(ray.remote(lambda: None).remote())  # idle, but up
        with peak_memory() as peak:
            at_first = _ingest(log, out)
        again = _ingest(log, out)
    return {
        "rows_a_second_at_first": at_first,
        "rows_a_second_again": again,
        "peak_mb_above_idle_ray": round(peak.above_baseline / 1e6),
    }


def _ingest(log: Path, out: Path) -> int:
    """Rows a second, after a check that every row was kept or counted."""
    started = time.perf_counter()
    counts = ingest([str(log)], str(out), IngestConfig(), overwrite=True).manifest.counts
    seconds = time.perf_counter() - started
    kept = counts["train"] + counts["validation"] + counts["test"]
    if kept + sum(counts["dropped"].values()) != counts["rows"]:
        raise RuntimeError(f"rows are missing: {counts}")
    return round(counts["rows"] / seconds)


def _beside_polars(logs: list[Path], out: Path) -> dict[str, Any]:
    """Rows a second of ours and of polars in turn, for each log."""
    found: dict[str, Any] = {}
    with ray_session(cpus=CPUS):
        for log in logs:
            _ingest(log, out)  # starts the workers
            pairs = []
            for _ in range(PAIRS):
                ours = _ingest(log, out)
                theirs = in_subprocess("benchmarks.polars_ingest", str(log), f"{out}-polars")
                pairs.append((ours, round(FULL / theirs["seconds"])))
            found[log.name] = {
                "ours": [ours for ours, _ in pairs],
                "polars": [theirs for _, theirs in pairs],
                "median_ratio": round(statistics.median(ours / theirs for ours, theirs in pairs), 2),
            }
    return found


def _large(log: Path, out: Path) -> dict[str, Any]:
    found: dict[str, Any] = asdict(NETFLIX)
    with ray_session(cpus=CPUS):
        with peak_memory(WHILE_TIMED) as peak:
            started = time.perf_counter()
            generate_log(str(log), NETFLIX)
            found["generate_rows_a_second"] = round(NETFLIX.rows / (time.perf_counter() - started))
        found["generate_peak_mb"] = round(peak.highest / 1e6)
    with ray_session(cpus=CPUS):
        with peak_memory(WHILE_TIMED) as peak:
            found["ingest_rows_a_second"] = _ingest(log, out)
        found["ingest_peak_mb"] = round(peak.highest / 1e6)
    return found


def _command(log: Path, out: Path) -> float:
    """Seconds of the whole command, with the start and the end of Ray."""
    command = [sys.executable, "-m", "jobs", "ingest", str(log), "--out", str(out), "--cpus", str(CPUS)]
    started = time.perf_counter()
    subprocess.run([*command, "--overwrite"], check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
