"""Bulk recommendation from a summary, as a share of what its largest matrix product alone would take.

    python -m benchmarks.recommend [--users 200000] [--scratch DIRECTORY]

A synthetic log of about 100 items a user (`infrec generate`) is ingested, and one step of Distill-CF makes 500
synthetic users: what it costs to recommend from them does not depend on how well they are learned. Timed, in a running
Ray session, is all that `infrec recommend` does between its start of actors and the published files: reading the model
and the users, kernels, scores, top-k, Parquet. The floor is the largest product alone, that with the labels: 2 · rank ·
items operations a user, at the rate that the same actors reach with it together, measured before and after (the better
counts).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import environment, peak_memory

OUT = Path("benchmarks/results/recommend.json")
ITEMS, BUDGET, K = 17_770, 500, 100
ROWS_A_USER = 100
GEMM_SECONDS = 3.0


class ProductWorker:
    """Multiplies the coefficients of a block of users with the labels, over and over."""

    def __init__(self, users: int, rank: int) -> None:
        rng = np.random.default_rng(0)
        self._coefficients = rng.random((users, rank), dtype=np.float32)
        self._labels = rng.random((rank, ITEMS), dtype=np.float32)

    def rate(self, seconds: float) -> float:
        """FLOP/s."""
        started, products = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            self._coefficients @ self._labels
            products += 1
        return products * 2.0 * self._coefficients.size * ITEMS / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument(
        "--scratch", type=Path, help="where log, dataset and recommendations lie for the time of the run"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        report = environment() | _measure(Path(scratch), arguments.users)
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _measure(scratch: Path, users: int) -> dict[str, Any]:
    from infrec.pipeline.cluster import ray_session

    with ray_session():
        from infrec.pipeline.cluster import open_pool
        from infrec.pipeline.serving import RecommendConfig, recommend
        from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind

        data = _dataset(scratch, users)
        with open_pool() as pool:
            summary = _summary(scratch, data, pool)

            def run() -> Any:
                writer = ArtefactWriter(scratch / "recommendations", Kind.RECOMMENDATIONS, purpose={}, overwrite=True)
                return recommend(summary, data, writer, pool, RecommendConfig(k=K))

            rank = Artefact.open(summary, Kind.SUMMARY).manifest.counts["rank"]
            before = _product_rate(pool, rank)
            started = time.perf_counter()
            published = run()
            seconds = time.perf_counter() - started
            rate = max(before, _product_rate(pool, rank))
            with peak_memory() as peak:  # in a run of its own: to look takes the cores a quarter of it
                run()
    counts = published.manifest.counts
    floor = 2.0 * rank * ITEMS * counts["users"] / rate
    return {
        "synthetic": True,
        "users": counts["users"],
        "interactions": int(data.manifest.counts["rows"]),
        "items": data.num_items,
        "budget": BUDGET,
        "rank": rank,
        "k": K,
        "rows": counts["rows"],
        "seconds": round(seconds, 2),
        "users_a_second": round(counts["users"] / seconds),
        "product_gflops": round(rate / 1e9, 1),
        "floor_seconds": round(floor, 2),
        "share_of_floor": round(floor / seconds, 3),
        "peak_mb_above_before": peak.above_baseline // 10**6,
    }


def _dataset(scratch: Path, users: int) -> Any:
    from infrec.pipeline.data import GenerateConfig, generate_log
    from infrec.pipeline.ingest import IngestConfig, ingest

    generate_log(str(scratch / "log"), GenerateConfig(rows=ROWS_A_USER * users, users=users, items=ITEMS))
    return ingest([str(scratch / "log")], str(scratch / "dataset"), IngestConfig())


def _summary(scratch: Path, data: Any, pool: Any) -> str:
    from infrec.pipeline.distillation import DistillConfig, summarise
    from infrec.pipeline.storage import ArtefactWriter, Kind

    writer = ArtefactWriter(scratch / "summary", Kind.SUMMARY, purpose={})
    config = DistillConfig(budget=BUDGET, steps=1, label_draws=1, judged_users=1000)
    return str(summarise(data, writer, config, pool).location)


def _product_rate(pool: Any, rank: int) -> float:
    """Return the rate of all actors at once."""
    from infrec.pipeline.data import USER_BLOCK

    with pool.workers(ProductWorker, USER_BLOCK, rank) as workers:
        return float(sum(workers.map("rate", [(GEMM_SECONDS,)] * len(workers))))


if __name__ == "__main__":
    main()
