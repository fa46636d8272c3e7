"""The labels that are solved for a summary, against dense formulas, and the groups that synthetic users begin with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel, kernel_diagonal_block
from infrec.kernels.landmarks import like_users_means
from infrec.kernels.ntk import NTK
from infrec.kernels.nystrom import LabelFactors, NormalEquations, NystromSystem
from infrec.kernels.sampler import Sampler
from infrec.pipeline.cluster import Pool
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import DistillConfig, Labels, distill
from infrec.pipeline.distillation import labels as labels_module
from infrec.pipeline.distillation.denoising import Denoising
from infrec.pipeline.distillation.labels import RoundedLabels, best_exponent
from infrec.pipeline.models import HISTORY, labels_of, load_recommender, summary_bytes, summary_matrix
from infrec.pipeline.models.summary import LABELS, WEIGHTS
from infrec.pipeline.solvers import normal_equations
from infrec.pipeline.storage import Artefact, ArtefactWriter, Diverged, Kind
from tests import oracles
from tests.builders import taste_dataset, write_dataset
from tests.matrices import split_matrix, taste_matrix

NETWORK = {"depth": 1, "w_std": math.sqrt(2), "b_std": 0.1}
CONFIG = DistillConfig(budget=12, sampler=Sampler(draws=30), steps=8, batch=100, validate_every=4)


def denoising(**given: Any) -> Denoising:
    settings: dict[str, Any] = {"drop": 0.3, "draws": 3, "user_weight": 0.5, "mean_size": 20.0, "seed": 1, **given}
    return Denoising(**settings)


def ntk(left: sp.csr_array, right: np.ndarray) -> np.ndarray:
    return oracles.ntk_matrix(left.toarray(), right, **NETWORK).astype(np.float64)


def test_inputs_lack_items_and_targets_lack_none() -> None:
    users = taste_matrix(400, 60, seed=0)
    how = denoising()
    first, second, third = how.inputs(users, 0, 0)
    assert (first != second).nnz and (second != third).nnz
    for inputs in (first, second, third):
        assert (users - inputs).min() >= 0
        assert inputs.nnz / users.nnz == pytest.approx(0.7, abs=0.02)
    for again, known in zip(how.inputs(users, 0, 0), (first, second, third), strict=True):
        assert not (again != known).nnz
    assert (next(how.inputs(users, 1, 0)) != first).nnz
    sizes = np.diff(users.indptr)
    np.testing.assert_allclose(how.weights(users), np.sqrt(20.0 / sizes), rtol=1e-6)
    assert (denoising(user_weight=0).weights(users) == 1).all()


def test_users_count_by_their_weights() -> None:
    users, summary = taste_matrix(200, 60, seed=0), taste_matrix(30, 60, seed=1)
    weights = np.random.default_rng(2).uniform(0.1, 3, 200).astype(np.float32)
    equations = NormalEquations.empty(30, 60)
    equations.add(LandmarkKernel.of(NTK(), KernelRows.of(summary)), [KernelRows.of(users)], users, weights)
    across = ntk(users, summary.toarray())
    np.testing.assert_allclose(equations.gram, across.T @ (weights[:, None] * across), rtol=1e-5)
    np.testing.assert_allclose(equations.targets, across.T @ (weights[:, None] * users.toarray()), rtol=1e-4)


@pytest.mark.parametrize("weighted", [50, 30])
def test_solved_labels_are_those_of_the_dense_formula(
    weighted: int, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the coefficients of the regression, cut in the metric of its error to the rank that validation chose."""
    monkeypatch.setattr(labels_module, "_STEPS", (0.01,))
    monkeypatch.setattr(labels_module, "_FACTOR_STEP", 0.01)
    dataset = taste_dataset(tmp_path / "data", 150, 50, seed=0, shards=1)
    summary = published(dataset, tmp_path / "summary", pool, weighted_items=weighted)
    counts = dataset.items()["train_count"].to_numpy()
    items = np.sort(np.argsort(-counts, kind="stable")[:weighted])
    rows = summary_matrix(summary).astype(np.float64)
    assert {*np.flatnonzero(rows.any(axis=0))} == {*items}
    rows = rows[:, items]
    lam = summary.manifest.config["lambda"]
    ridge = summary.table(HISTORY)["ridge"][-1].as_py()
    train = dataset.training_matrix()
    how = denoising(mean_size=train.nnz / 150, draws=CONFIG.label_draws, seed=CONFIG.seed)
    # The users of each of the four parts are one block
    bounds = [150 * part // 4 for part in range(5)]
    draws = [[*how.inputs(train[start:stop], part, 0)] for part, (start, stop) in enumerate(pairwise(bounds))]
    inputs = [sp.csr_array(sp.vstack(parts))[:, items] for parts in zip(*draws, strict=True)]
    across = [ntk(rows_of_users, rows) for rows_of_users in inputs]
    weights = how.weights(train)[:, None].astype(np.float64)
    gram = sum(kernel.T @ (weights * kernel) for kernel in across)
    targets = sum(kernel.T @ (weights * train.toarray()) for kernel in across)
    matrix = ntk(sp.csr_array(rows), rows)
    matrix += lam * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    ridge *= np.trace(np.linalg.solve(matrix, gram)) / len(matrix)
    metric = np.linalg.cholesky(gram + ridge * matrix).T
    left, sizes, right = np.linalg.svd(np.linalg.solve(metric.T, targets), full_matrices=False)
    rank = summary.manifest.counts["rank"]
    dual = np.linalg.solve(metric, (left[:, :rank] * sizes[:rank]) @ right[:rank])
    context = dataset.histories().train[:40]
    found = load_recommender(summary).scores(context)
    expected = ntk(sp.csr_array(context[:, items]), rows) @ dual
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    labels = labels_of(summary)
    assert labels is not None
    np.testing.assert_allclose(labels, matrix @ dual, atol=0.02 * np.abs(labels).max())


def test_strips_of_items_change_nothing(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large catalogue is solved strip by strip."""
    dataset = taste_dataset(tmp_path / "data", 150, 50, seed=0)
    whole = published(dataset, tmp_path / "whole", pool, weighted_items=30)
    monkeypatch.setattr(normal_equations, "STRIP_ENTRIES", 12 * 7)
    in_strips = published(dataset, tmp_path / "strips", pool, weighted_items=30)
    assert in_strips.manifest.fingerprint() == whole.manifest.fingerprint()


def test_items_without_weights_are_recommended(pool: Pool, tmp_path: Path) -> None:
    dataset = taste_dataset(tmp_path / "data", 400, 50, seed=0)
    summary = published(dataset, tmp_path / "summary", pool, weighted_items=10)
    scores = load_recommender(summary).scores(dataset.histories().train[:200])
    best = np.argsort(-scores, axis=1)[:, :10]
    weighted = np.flatnonzero(summary_matrix(summary).any(axis=0))
    assert len(weighted) == 10
    assert (~np.isin(best, weighted)).mean() > 0.05


def test_coarser_levels_take_fewer_bytes_and_change_more(pool: Pool, tmp_path: Path) -> None:
    dataset = taste_dataset(tmp_path / "data", 400, 50, seed=0)
    finest, fine, coarse = (
        published(dataset, tmp_path / f"{agreement}", pool, label_agreement=agreement) for agreement in (1, 0.9, 0.6)
    )
    assert summary_bytes(finest) > summary_bytes(fine) > summary_bytes(coarse)
    assert 1 > agreement_of(finest, fine, dataset) > agreement_of(finest, coarse, dataset) > 0.5


def test_levels_are_fine_where_ten_items_are_all_that_are_unseen(pool: Pool, tmp_path: Path) -> None:
    matrix = taste_matrix(200, 12, seed=0, per_user=6)
    dataset = write_dataset(tmp_path / "data", *split_matrix(matrix, seed=0))
    fine, coarse = (
        published(dataset, tmp_path / f"{agreement}", pool, label_agreement=agreement) for agreement in (1, 0)
    )
    greatest = [np.abs(levels_of(summary)).max() for summary in (fine, coarse)]
    assert greatest[0] > 2 * greatest[1]


def levels_of(summary: Artefact) -> np.ndarray:
    return np.frombuffer(b"".join(summary.table(LABELS)["levels"].to_pylist()), np.int8)


def agreement_of(summary: Artefact, other: Artefact, dataset: Dataset) -> float:
    """Return the part of the first ten recommendations for the users of validation that two summaries share."""
    seen = dataset.histories().context("validation")
    lists = []
    for one in (summary, other):
        scores = load_recommender(one).scores(seen)
        scores[seen.nonzero()] = -np.inf
        lists.append(np.argsort(-scores, axis=1)[:, :10])
    return float(np.mean([len({*mine} & {*others}) / 10 for mine, others in zip(*lists, strict=True)]))


def test_weights_in_greater_steps_take_fewer_bytes(pool: Pool, tmp_path: Path) -> None:
    dataset = taste_dataset(tmp_path / "data", 400, 50, seed=0)
    fine, coarse = (published(dataset, tmp_path / f"{step}", pool, weight_step=step) for step in (0.2, 2.0))
    assert coarse.manifest.files[WEIGHTS].size < 0.9 * fine.manifest.files[WEIGHTS].size
    assert best_of(coarse) > 0.75 * best_of(fine)


def best_of(summary: Artefact) -> float:
    return max(row["nDCG@10"] for row in summary.table(HISTORY).to_pylist())


def test_labels_may_be_the_users_own(pool: Pool, tmp_path: Path) -> None:
    dataset = taste_dataset(tmp_path / "data", 150, 50, seed=0)
    own = published(dataset, tmp_path / "summary", pool, labels=Labels.OWN)
    assert LABELS not in own.manifest.files and labels_of(own) is None
    assert {row["ridge"] for row in own.table(HISTORY).to_pylist()} == {None}


def test_labels_of_another_matrix_than_the_kernel() -> None:
    users, summary = taste_matrix(200, 60, seed=0), KernelRows.of(taste_matrix(30, 60, seed=1))
    equations = NormalEquations.empty(30, 60)
    equations.add(LandmarkKernel.of(NTK(), summary), [KernelRows.of(users)], users)
    gram, targets = equations.gram.copy(), equations.targets.astype(np.float64)
    kernel = kernel_diagonal_block(NTK(), summary).astype(np.float64)
    matrix = kernel + 0.1 * np.eye(30)
    system = NystromSystem.of(matrix, equations)
    assert system.mean == pytest.approx(np.trace(np.linalg.solve(matrix, gram)) / 30)
    for ridge in (1e-3, 1.0, 100.0):
        expected = matrix @ np.linalg.solve(gram + ridge * matrix, targets)
        left, right = system.labels(matrix, ridge, rank=30)
        np.testing.assert_allclose(left @ right, expected, atol=1e-4 * np.abs(expected).max())
        across = right @ right.T
        np.testing.assert_allclose(across - np.diag(np.diag(across)), 0, atol=1e-5 * across.max())
        for rank in (1, 7):
            lower = system.labels(matrix, ridge, rank)
            np.testing.assert_allclose(np.abs(lower.right), np.abs(right[:rank]), atol=1e-4 * np.abs(right).max())
            np.testing.assert_allclose(lower.left @ lower.right, left[:, :rank] @ right[:rank], atol=1e-3)


@pytest.mark.parametrize("peak", [-12, -9, -5, -3, -1, 2, 3])
def test_the_grid_of_ridges_goes_on_beyond_its_edges(peak: int) -> None:
    tried: list[int] = []

    def judged(exponents: Sequence[int]) -> list[dict[str, float] | None]:
        tried.extend(exponents)
        return [{"nDCG@10": -abs(exponent - peak)} for exponent in exponents]

    assert best_exponent(judged, "nDCG@10") == (peak, {"nDCG@10": 0})
    assert sorted({*tried}) == sorted(tried) and {*range(-4, 1)} <= {*tried}
    assert min(tried) >= min(-4, peak - 1) and max(tried) <= max(0, peak + 1)
    tried.clear()
    assert best_exponent(judged, "nDCG@10", near=-3) == (peak, {"nDCG@10": 0})
    assert len({*tried}) == len(tried) <= abs(peak + 3) + 3


def test_no_ridge_has_finite_labels() -> None:
    with pytest.raises(Diverged, match="No labels are finite"):
        best_exponent(lambda exponents: [None for _ in exponents], "nDCG@10")


def test_rounded_labels_are_near_the_exact_ones() -> None:
    random = np.random.default_rng(0)
    exact = LabelFactors(*(random.normal(size=shape).astype(np.float32) for shape in ((40, 9), (9, 300))))
    labels = exact.left @ exact.right
    errors = []
    for step in (0.1, 0.5, 2.0):
        rounded = RoundedLabels.of(exact, step)
        found = rounded.factors.matrix @ rounded.labels.astype(np.float32)
        errors.append(np.abs(found - labels).mean() / np.abs(labels).mean())
    assert errors[0] < 0.06 < errors[1] < errors[2] < 0.7


@pytest.mark.parametrize("size", [1, 5, 500])
def test_groups_are_of_the_users_that_are_most_alike(size: int) -> None:
    users = taste_matrix(150, 60, seed=0)
    dense = users.toarray().astype(np.float64)
    unit = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    likeness = (unit.astype(np.float32) @ unit.T.astype(np.float32)) - 2 * np.eye(150, dtype=np.float32)
    size = min(size, 149)
    for user, mean in enumerate(like_users_means(users, 100, size=size)):
        # Which of two that are equally alike belongs to the group is a matter of rounding; how alike all are is not
        members = np.flatnonzero(likeness[user] >= np.sort(likeness[user])[-size] - 1e-5)
        assert size <= len(members) < 150
        assert (mean[dense[members].sum(axis=0) == 0] == 0).all()
        if len(members) == size:
            np.testing.assert_allclose(mean, dense[members].mean(axis=0), rtol=1e-6)


def test_a_user_that_is_alone_is_its_own_group() -> None:
    users = taste_matrix(2, 30, seed=0)[:1]
    np.testing.assert_array_equal(like_users_means(users, 1, size=20), users.toarray())


def published(dataset: Dataset, out: Path, pool: Pool, **options: Any) -> Artefact:
    config = replace(CONFIG, **options)
    with ArtefactWriter(out, Kind.SUMMARY, purpose={}) as writer:
        return distill(dataset, writer, config, pool)
