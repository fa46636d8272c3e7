"""Fitting any of the models in a test, and looking at the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infrec.kernels.normalisation import Exponents
from infrec.pipeline.cluster import Pool, Report, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import (
    EASEConfig,
    InfiniteAEConfig,
    MFConfig,
    NystromConfig,
    fit_ease,
    fit_mf,
    fit_popularity,
)
from infrec.pipeline.solvers import fit_exact, fit_nystrom, fit_tiled
from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind

TILE = 200
"""Rows of a tile in files: a few tiles a side, the last one shorter."""
NONE = (Exponents(),)
DEGREE = (Exponents(user=0.4, item=0.25),)


def fit(model: str, dataset: Dataset, out: Path, pool: Pool, *, report: Report = silent, **config: Any) -> Artefact:
    """The model as `infrec fit` makes it, with the given values of its config."""
    writer = ArtefactWriter(out, Kind.MODEL, purpose={"model": model})
    if model == "infinite-ae":
        return fit_exact(dataset, writer, InfiniteAEConfig(**config), pool, report=report)
    if model == "nystrom":
        return fit_nystrom(dataset, writer, NystromConfig(**config), pool, report=report)
    if model == "tiled":
        return fit_tiled(dataset, writer, InfiniteAEConfig(**config), pool, tile=TILE, report=report)
    if model == "ease":
        return fit_ease(dataset, writer, EASEConfig(**config), report=report)
    if model == "mf":
        return fit_mf(dataset, writer, MFConfig(**config), report=report)
    return fit_popularity(dataset, writer)


def checksums(model: Artefact) -> dict[str, str]:
    return {name: record.sha256 for name, record in model.manifest.files.items()}
