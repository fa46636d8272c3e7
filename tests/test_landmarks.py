"""Landmarks and normal equations against dense formulas, on well and on badly conditioned users."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel, kernel_block, kernel_diagonal_block
from infrec.kernels.landmarks import cluster_means, rpcholesky
from infrec.kernels.ntk import NTK
from infrec.kernels.nystrom import NormalEquations, NystromSystem
from tests import oracles
from tests.matrices import taste_matrix

NETWORK = {"depth": 1, "w_std": math.sqrt(2), "b_std": 0.1}


def test_normal_equations_of_blocks_are_those_of_all_users() -> None:
    users, landmarks = taste_matrix(300, 80, seed=0), KernelRows.of(taste_matrix(150, 80, seed=1))
    total = NormalEquations.empty(150, 80)
    for start, stop in ((0, 1), (1, 130), (130, 300)):
        share = NormalEquations.empty(150, 80)
        share.add(LandmarkKernel.of(NTK(), landmarks), [KernelRows.of(users[start:stop])], users[start:stop])
        total += share
    across = oracles.ntk_matrix(users.toarray(), landmarks.rows.toarray(), **NETWORK).astype(np.float64)
    np.testing.assert_allclose(total.gram, across.T @ across, rtol=1e-5)
    np.testing.assert_allclose(total.targets, across.T @ users.toarray(), rtol=1e-5)
    trace = sum(float(oracles.ntk_pair(row, row, **NETWORK)) for row in users.toarray())
    assert total.ridge(2.0) == pytest.approx(2.0 * trace / 300, rel=1e-5)


def test_users_that_take_part_twice_count_twice() -> None:
    users, landmarks = taste_matrix(90, 80, seed=0), KernelRows.of(taste_matrix(20, 80, seed=1))
    inputs = [KernelRows.of(rows) for rows in (users, taste_matrix(90, 80, seed=2))]
    weights = np.linspace(0.5, 2, 90, dtype=np.float32)
    at_once, apart = NormalEquations.empty(20, 80), NormalEquations.empty(20, 80)
    at_once.add(LandmarkKernel.of(NTK(), landmarks), inputs, users, weights)
    for each in inputs:
        apart.add(LandmarkKernel.of(NTK(), landmarks), [each], users, weights)
    np.testing.assert_allclose(at_once.targets, apart.targets, rtol=1e-5)
    np.testing.assert_array_equal(at_once.gram, apart.gram)
    assert (at_once.trace, at_once.users) == (apart.trace, 180)


@pytest.mark.parametrize("lam", [1e-3, 0.1, 5.0])
def test_users_who_repeat_each_other_and_a_small_ridge_do_no_harm(lam: float) -> None:
    """Every user three times, half of all of them landmarks: K_ZZ and A are singular, their exact solution is not."""
    once = taste_matrix(100, 60, seed=3)
    users = sp.csr_array(sp.vstack([once] * 3))
    landmarks = KernelRows.of(users[50:200])
    equations = NormalEquations.empty(150, 60)
    equations.add(LandmarkKernel.of(NTK(), landmarks), [KernelRows.of(users)], users)
    ridge = equations.ridge(lam)
    system = NystromSystem.of(kernel_diagonal_block(NTK(), landmarks).astype(np.float64), equations)
    assert len(system.spectrum) == 100
    found = kernel_block(NTK(), KernelRows.of(once), landmarks) @ system.dual(ridge)
    # The landmarks span all users, so this is the exact regression: K (K + c·1)⁻¹ X with three of each user
    gram = oracles.ntk_matrix(once.toarray(), once.toarray(), **NETWORK).astype(np.float64)
    expected = gram @ oracles.ridge_regression(gram, once.toarray(), ridge / 3)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_no_ridge_and_no_solution_is_not_finite() -> None:
    """Fewer users than landmarks: A has directions without anything in them."""
    users, landmarks = taste_matrix(3, 40, seed=0), KernelRows.of(taste_matrix(20, 40, seed=1))
    equations = NormalEquations.empty(20, 40)
    equations.add(LandmarkKernel.of(NTK(), landmarks), [KernelRows.of(users)], users)
    system = NystromSystem.of(kernel_diagonal_block(NTK(), landmarks).astype(np.float64), equations)
    assert (system.spectrum >= 0).all()
    assert np.isfinite(system.dual(1.0)).all()


def clustered(users: int, *, groups: int, seed: int) -> sp.csr_array:
    """Users of a few kinds that hardly overlap; most are of the first."""
    random = np.random.default_rng(seed)
    group = np.where(random.random(users) < 0.9, 0, random.integers(groups, size=users))
    own = random.random((users, groups, 12)) < 0.97
    own &= (np.arange(groups) == group[:, None])[:, :, None]
    return sp.csr_array(own.reshape(users, -1).astype(np.float32))


def test_rpcholesky_finds_users_of_every_kind() -> None:
    users = clustered(600, groups=20, seed=0)
    kind = users.toarray().reshape(600, 20, 12).sum(axis=2).argmax(axis=1)
    chosen, other = (rpcholesky(NTK(), KernelRows.of(users), 150, seed=seed) for seed in (0, 1))
    assert len(np.unique(chosen)) == 150 and (np.diff(chosen) > 0).all()
    lot = np.random.default_rng(0).choice(600, 150, replace=False)
    assert len(set(kind[lot])) < len(set(kind[chosen])) == len(set(kind))
    np.testing.assert_array_equal(chosen, rpcholesky(NTK(), KernelRows.of(users), 150, seed=0))
    assert not np.array_equal(chosen, other)


def test_rpcholesky_prefers_those_that_repeat_nobody() -> None:
    """260 of 300 users have the same history: the 40 others are all worth choosing, and one of the 260."""
    others = taste_matrix(40, 60, seed=2)
    same = sp.csr_array(sp.vstack([taste_matrix(1, 60, seed=4)] * 260))
    users = sp.csr_array(sp.vstack([same, others]))
    chosen = rpcholesky(NTK(), KernelRows.of(users), 200, seed=0)
    assert len(np.unique(chosen)) == 200
    assert set(range(260, 300)) <= set(chosen.tolist())


def test_cluster_means_are_those_of_k_means_by_its_definition() -> None:
    users = taste_matrix(200, 60, seed=0).toarray().astype(np.float64)
    centres = first = users[np.sort(np.random.default_rng(5).choice(200, 15, replace=False))]
    unit = users / np.linalg.norm(users, axis=1, keepdims=True)
    for _ in range(3):
        cosines = unit @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
        nearest = cosines.argmax(axis=1)
        centres = np.array([unit[nearest == k].mean(axis=0) if (nearest == k).any() else first[k] for k in range(15)])
    expected = [users[nearest == k].mean(axis=0) if (nearest == k).any() else first[k] for k in range(15)]
    found = cluster_means(sp.csr_array(users.astype(np.float32)), 15, seed=5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.toarray(), np.array(expected), atol=1e-5)


def test_cluster_means_of_equal_and_of_empty_users() -> None:
    """Clusters without anybody keep the user that they began with, and nothing is divided by zero."""
    row = taste_matrix(1, 50, seed=0).toarray()
    same = cluster_means(sp.csr_array(np.repeat(row, 20, axis=0)), 12, seed=0).toarray()
    np.testing.assert_allclose(same, np.repeat(row, 12, axis=0), rtol=1e-6)
    empty = np.zeros((5, 50), np.float32)
    assert np.isfinite(cluster_means(sp.csr_array(np.vstack([row, empty])), 6, seed=0).toarray()).all()
    everyone = taste_matrix(20, 50, seed=1)
    np.testing.assert_array_equal(cluster_means(everyone, 20, seed=0).toarray(), everyone.toarray())
