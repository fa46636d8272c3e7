"""A distillation that is small and whole: it validates, starts again and is published within seconds."""

from __future__ import annotations

from pathlib import Path

from infrec.kernels.sampler import Sampler
from infrec.pipeline.cluster import Pool, Report, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import DistillConfig, distill
from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind

CONFIG = DistillConfig(
    budget=20,
    sampler=Sampler(draws=30),
    learning_rate=0.1,
    steps=16,
    restarts=1,
    batch=200,
    validate_every=8,
    checkpoint_every=4,
    accumulate=2,
)


def summarise(
    dataset: Dataset,
    out: Path,
    pool: Pool,
    config: DistillConfig = CONFIG,
    *,
    report: Report = silent,
    warm_start: Artefact | None = None,
) -> Artefact:
    with ArtefactWriter(out, Kind.SUMMARY, purpose={"config": str(config)}, keep_unfinished=True) as writer:
        return distill(dataset, writer, config, pool, report=report, warm_start=warm_start)
