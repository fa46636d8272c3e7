"""The labels that are solved for a summary, against dense formulas, and the groups that synthetic users begin with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.kernel_matrix import KernelRows, kernel_diagonal_block
from infrec.kernels.landmarks import like_users_means
from infrec.kernels.ntk import NTK
from infrec.kernels.nystrom import NormalEquations, NystromSystem
from infrec.kernels.sampler import Sampler
from infrec.pipeline.cluster import Pool
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import DistillConfig, Labels, distill
from infrec.pipeline.distillation.labels import SolvedLabels, _best_ridge
from infrec.pipeline.models import HISTORY, USERS, labels_of, load_recommender, summary_matrix
from infrec.pipeline.solvers import Denoising
from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind
from tests import oracles
from tests.builders import taste_dataset
from tests.matrices import taste_matrix

NETWORK = {"depth": 1, "w_std": math.sqrt(2), "b_std": 0.1}
CONFIG = DistillConfig(budget=12, sampler=Sampler(draws=30), steps=8, batch=100, validate_every=4)


def denoising(**given: float) -> Denoising:
    settings = {"drop": 0.3, "draws": 3, "user_weight": 0.5, "mean_size": 20.0, "seed": 1, **given}
    return Denoising(**settings)  # type: ignore[arg-type]


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
    equations.add(NTK(), KernelRows.of(users), users, KernelRows.of(summary), weights)
    across = ntk(users, summary.toarray())
    np.testing.assert_allclose(equations.gram, across.T @ (weights[:, None] * across), rtol=1e-5)
    np.testing.assert_allclose(equations.targets, across.T @ (weights[:, None] * users.toarray()), rtol=1e-4)


def test_solved_labels_are_those_of_the_dense_formula(pool: Pool, tmp_path: Path) -> None:
    dataset = taste_dataset(tmp_path / "data", 150, 50, seed=0, shards=1)
    summary = published(dataset, tmp_path / "summary", pool)
    rows, labels = summary_matrix(summary).astype(np.float64), labels_of(summary)
    assert labels is not None and labels.shape == rows.shape
    lam = summary.manifest.config["lambda"]
    (ridge,) = (row["ridge"] for row in summary.table(HISTORY).to_pylist() if row["ridge"] is not None)
    train = dataset.training_matrix()
    how = denoising(mean_size=train.nnz / 150, seed=CONFIG.seed)
    across = [ntk(inputs, rows) for inputs in how.inputs(train, 0, 0)]
    weights = how.weights(train)[:, None].astype(np.float64)
    gram = sum(kernel.T @ (weights * kernel) for kernel in across)
    targets = sum(kernel.T @ (weights * train.toarray()) for kernel in across)
    matrix = ntk(sp.csr_array(rows), rows)
    matrix += lam * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    ridge *= np.trace(np.linalg.solve(matrix, gram)) / len(matrix)
    dual = np.linalg.solve(gram + ridge * matrix, targets)
    context = dataset.histories().train[:40]
    found = load_recommender(summary).scores(context)
    expected = ntk(context, rows) @ dual
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(labels, matrix @ dual, atol=2e-3 * np.abs(labels).max())


def test_labels_may_be_the_users_own(pool: Pool, tmp_path: Path) -> None:
    dataset = taste_dataset(tmp_path / "data", 150, 50, seed=0)
    own = published(dataset, tmp_path / "summary", pool, labels=Labels.OWN)
    assert "label" not in own.table(USERS).column_names and labels_of(own) is None
    assert {row["ridge"] for row in own.table(HISTORY).to_pylist()} == {None}


def test_labels_of_another_matrix_than_the_kernel() -> None:
    users, summary = taste_matrix(200, 60, seed=0), KernelRows.of(taste_matrix(30, 60, seed=1))
    equations = NormalEquations.empty(30, 60)
    equations.add(NTK(), KernelRows.of(users), users, summary)
    gram, targets = equations.gram.copy(), equations.targets.astype(np.float64)
    kernel = kernel_diagonal_block(NTK(), summary).astype(np.float64)
    matrix = kernel + 0.1 * np.eye(30)
    system = NystromSystem.of(matrix, equations)
    assert system.mean == pytest.approx(np.trace(np.linalg.solve(matrix, gram)) / 30)
    for ridge in (1e-3, 1.0, 100.0):
        expected = matrix @ np.linalg.solve(gram + ridge * matrix, targets)
        np.testing.assert_allclose(system.labels(matrix, ridge), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("peak", [-12, -9, -5, -3, -1, 2, 3])
def test_the_grid_of_ridges_goes_on_beyond_its_edges(peak: int) -> None:
    tried: list[int] = []

    def judged(ridge: float) -> SolvedLabels:
        exponent = round(math.log10(ridge))
        tried.append(exponent)
        return SolvedLabels(np.zeros((1, 1), np.float32), ridge, {"nDCG@10": -abs(exponent - peak)})

    best = _best_ridge(judged, "nDCG@10", lambda *_: None)
    assert best and best.ridge == pytest.approx(10.0**peak)
    assert sorted({*tried}) == sorted(tried) and {*range(-5, 0)} <= {*tried}
    assert min(tried) >= min(-5, peak - 1) and max(tried) <= max(-1, peak + 1)


def test_no_ridge_has_finite_labels() -> None:
    assert _best_ridge(lambda ridge: None, "nDCG@10", lambda *_: None) is None


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


def published(dataset: Dataset, out: Path, pool: Pool, labels: Labels = Labels.SOLVED) -> Artefact:
    config = DistillConfig(
        budget=CONFIG.budget, sampler=CONFIG.sampler, steps=8, batch=100, validate_every=4, labels=labels
    )
    with ArtefactWriter(out, Kind.SUMMARY, purpose={}) as writer:
        return distill(dataset, writer, config, pool)
