"""The paper's figures on MovieLens-1M, its own split: the same log, from Parquet to metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infrec.pipeline.cluster import Pool, open_pool
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import BaselineConfig, DistillConfig, Method, distill, summarise
from infrec.pipeline.ingest import IngestConfig, Split, ingest
from infrec.pipeline.models import VALIDATION
from infrec.pipeline.serving import evaluate
from infrec.pipeline.storage import ArtefactWriter, Kind
from tests.models import DEGREE, NONE, fit

pytestmark = pytest.mark.usefixtures("cluster")

PAPER = {"HR@10": 31.906, "HR@100": 60.913, "nDCG@10": 33.394, "nDCG@100": 43.326, "PSP@10": 3.295}
"""The official code, λ=5, all users."""


@pytest.fixture(scope="module")
def ml1m(shared_data: Path, cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("ml-1m") / "dataset"
    return ingest([str(shared_data / "ml-1m.parquet")], str(out), IngestConfig(split=Split.COLUMN))


@pytest.fixture(scope="module")
def workers(ml1m: Dataset) -> Iterator[Pool]:
    """Started when ingest, which needs the CPUs itself, is done."""
    with open_pool() as pool:
        yield pool


def metrics_of(model: str, dataset: Dataset, folder: Path, pool: Pool, **config: Any) -> dict[str, float]:
    fitted = fit(model, dataset, folder / "model", pool, **config)
    return dict(evaluate(str(fitted.location), dataset, pool).metrics)


def test_infinite_ae_has_the_metrics_of_the_official_code(ml1m: Dataset, tmp_path: Path, workers: Pool) -> None:
    metrics = metrics_of("infinite-ae", ml1m, tmp_path, workers, lambdas=(5.0,), exponents=NONE)
    for name, value in PAPER.items():
        assert metrics[name] == pytest.approx(value, abs=0.05), name
    # The official code has 0.9457: there a user's validation items, in the context, can be negatives
    assert metrics["AUC"] == pytest.approx(0.9493, abs=0.001)


def test_degree_normalisation_beats_the_paper(ml1m: Dataset, tmp_path: Path, workers: Pool) -> None:
    metrics = metrics_of("infinite-ae", ml1m, tmp_path, workers, lambdas=(5.0,), exponents=DEGREE)
    assert metrics["nDCG@10"] >= 34.4
    assert metrics["HR@10"] >= 32.8


def test_ease_is_tuned_as_hard(ml1m: Dataset, tmp_path: Path, workers: Pool) -> None:
    fitted = fit("ease", ml1m, tmp_path / "model", workers, lambdas=(500.0, 1000.0, 2000.0))
    assert len(fitted.table(VALIDATION)) == 3
    assert fitted.manifest.config["lambda"] == 1000
    assert evaluate(str(fitted.location), ml1m, workers).metrics["nDCG@10"] == pytest.approx(34.07, abs=0.1)


@pytest.mark.parametrize(
    ("method", "expected", "within"), [(Method.NYSTROM, 31.8, 0.5), (Method.RANDOM_USERS, 27.6, 1.0)]
)
def test_summaries_of_real_users(
    method: Method, expected: float, within: float, ml1m: Dataset, tmp_path: Path, workers: Pool
) -> None:
    """A distilled summary of 500 users has to be better than these."""
    writer = ArtefactWriter(tmp_path / "summary", Kind.SUMMARY, purpose={})
    summary = summarise(ml1m, writer, BaselineConfig(method=method, budget=500), workers)
    assert evaluate(str(summary.location), ml1m, workers).metrics["nDCG@10"] == pytest.approx(expected, abs=within)


def test_a_hundred_synthetic_users_do_better_than_the_paper_s(ml1m: Dataset, tmp_path: Path, workers: Pool) -> None:
    """The paper's have 94.1 % of all users' HR@10. These have more after a fifth of the default's first steps.

    The bar is 97 %, because metrics differ by up to 2 % on another processor, and here they are 99 %.
    """
    config = DistillConfig.for_budget(100, steps=60, validate_every=60)
    with ArtefactWriter(tmp_path / "summary", Kind.SUMMARY, purpose={}) as writer:
        summary = distill(ml1m, writer, config, workers)
    metrics = evaluate(str(summary.location), ml1m, workers).metrics
    assert metrics["HR@10"] >= 0.97 * PAPER["HR@10"]
    assert metrics["nDCG@10"] >= 0.97 * PAPER["nDCG@10"]
