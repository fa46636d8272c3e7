"""Kernel ridge regression in its dual, against a dense solve in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels import dual, tiles
from infrec.kernels.dual import CoefficientDual, InverseDual
from infrec.kernels.tiles import ArrayTiles, Layout, Tiles
from tests import oracles
from tests.tolerances import assert_solved

USERS, ITEMS, TILE = 45, 20, 16
LAM = 0.5


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


class System:
    """A random kernel system, dense and as tiles, with its solution by either route."""

    def __init__(self, dtype: np.dtype) -> None:
        rng = np.random.default_rng(0)
        features = rng.standard_normal((USERS, USERS + 10))
        self.gram = (features @ features.T / USERS).astype(dtype)
        self.targets = (rng.random((USERS, ITEMS)) < 0.3).astype(dtype)
        self.kernel = rng.standard_normal((USERS, 7)).astype(dtype)
        self.layout = Layout(USERS, TILE)
        spans = self.layout.spans()
        self.tiles: Tiles = {(i, j): self.gram[spans[i], spans[j]] for i, j in self.layout.lower()}
        self.ridge = dual.ridge_of(self.tiles, self.layout, LAM)
        self.condition = float(np.linalg.cond(self.gram + self.ridge * np.eye(USERS)))
        self.alpha = oracles.ridge_regression(self.gram, self.targets, self.ridge)
        self.inverse = ArrayTiles(self.layout, dtype)
        dual.solve_ridge(self.tiles, self.layout, self.ridge, self.inverse)
        self.right = sp.csr_array(self.targets.T)
        self.solution = InverseDual(self.inverse, self.layout, self.right)


@pytest.fixture
def system(dtype: np.dtype) -> System:
    return System(dtype)


def test_ridge_is_lambda_times_the_mean_of_the_diagonal(system: System) -> None:
    assert system.ridge == pytest.approx(LAM * np.mean(np.diag(system.gram)), rel=1e-6)


def test_coefficients_are_those_of_the_dense_solve(system: System) -> None:
    stored = CoefficientDual.of(system.solution, np.empty(system.targets.shape, system.gram.dtype))
    for users in (np.arange(USERS), np.array([0, 3, 15, 16, 44]), np.array([40])):
        found = system.solution.coefficients(users)
        assert found.flags.c_contiguous
        assert_solved(found, system.alpha[users], condition=system.condition)
        np.testing.assert_array_equal(stored.coefficients(users), found)


def test_both_duals_score_as_the_dense_solve(system: System) -> None:
    expected = system.kernel.T.astype(np.float64) @ system.alpha
    alpha = system.solution.coefficients(np.arange(USERS))
    blocks = CoefficientDual([alpha[span] for span in system.layout.spans()])
    for solution in (system.solution, blocks, CoefficientDual([alpha])):
        scores = solution.scores(system.kernel)
        assert scores.dtype == system.gram.dtype
        assert_solved(scores, expected, condition=system.condition)


def test_in_sample_scores_need_no_second_product(system: System) -> None:
    """K M X = X − c α."""
    scores = system.solution.scores(system.gram)
    alpha = system.solution.coefficients(np.arange(USERS))
    assert_solved(scores, system.targets - system.ridge * alpha, condition=system.condition)


def test_residual_is_the_true_one(system: System, dtype: np.dtype) -> None:
    found = dual.residual(system.tiles, system.inverse, system.layout, system.ridge, system.right)
    assert 0 < found < 32 * system.condition * np.finfo(dtype).eps

    # The same of a wrong inverse: its error is seen, and is that of all right-hand sides
    rng = np.random.default_rng(1)
    for error in (1e-3, 0.1):
        noise = {index: rng.standard_normal(tile.shape).astype(dtype) for index, tile in system.inverse.items()}
        wrong = {index: tile + dtype.type(error) * noise[index] for index, tile in system.inverse.items()}
        shifted = system.gram + system.ridge * np.eye(USERS)
        true = np.linalg.norm(shifted @ tiles.multiply(wrong, system.layout, system.targets) - system.targets)
        true /= np.linalg.norm(system.targets)
        seen = dual.residual(system.tiles, wrong, system.layout, system.ridge, system.right)
        assert seen == pytest.approx(true, rel=0.5)
    wrong_ridge = dual.residual(system.tiles, system.inverse, system.layout, 2 * system.ridge, system.right)
    assert wrong_ridge > 0.1


def test_a_system_without_ridge_and_rank_is_refused(dtype: np.dtype) -> None:
    layout = Layout(20, TILE)
    spans = layout.spans()
    same_users = -1e-3 * np.eye(20, dtype=dtype) + 1
    gram = {(i, j): same_users[spans[i], spans[j]] for i, j in layout.lower()}
    with pytest.raises(tiles.NotPositiveDefinite, match="larger ridge"):
        dual.solve_ridge(gram, layout, 0.0, ArrayTiles(layout, dtype))
    dual.solve_ridge(gram, layout, 1.0, ArrayTiles(layout, dtype))
