"""Degree normalisation against its formula, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from tests import oracles
from tests.matrices import taste_matrix


@pytest.fixture
def train() -> sp.csr_array:
    """With an item and a user of degree 0."""
    matrix = taste_matrix(30, 25, seed=0, per_user=8).toarray()
    matrix[:, 4] = 0
    matrix[7] = 0
    return sp.csr_array(matrix)


@pytest.mark.parametrize(("p", "q"), [(0.5, 0.0), (0.0, 0.25), (0.4, 0.25), (1.0, 1.0)])
def test_equals_the_formula(train: sp.csr_array, p: float, q: float) -> None:
    normalisation = DegreeNormalisation.of(train, Exponents(user=p, item=q))
    context = taste_matrix(12, 25, seed=1, per_user=5)  # other users: by their own row sums
    dense = train.toarray().astype(np.float64)
    for rows in (train, context):
        found = normalisation(rows)
        assert found.dtype == rows.dtype
        np.testing.assert_array_equal(found.indices, rows.indices)
        expected = oracles.normalised(dense, rows.toarray(), p=p, q=q)
        np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_keeps_the_mean_squared_row_norm_of_the_train_matrix(train: sp.csr_array) -> None:
    normalised = DegreeNormalisation.of(train, Exponents(user=0.4, item=0.25))(train)
    assert np.sum(normalised.data.astype(float) ** 2) == pytest.approx(train.nnz, rel=1e-6)


@pytest.mark.parametrize(("p", "q"), [(0.0, 0.0), (0.4, 0.25)])
def test_comes_from_degrees_and_blocks_of_users_as_well(train: sp.csr_array, p: float, q: float) -> None:
    exponents = Exponents(user=p, item=q)
    degrees = np.asarray(train.sum(axis=0), dtype=np.int64)
    unscaled = DegreeNormalisation.of_degrees(degrees, exponents)
    squares = unscaled.squares(train[:11]) + unscaled.squares(train[11:])
    scale = unscaled.scale(train.nnz, squares)
    found = DegreeNormalisation.of_degrees(degrees, exponents, scale=scale)
    whole = DegreeNormalisation.of(train, exponents)
    np.testing.assert_allclose(found.item_weights, whole.item_weights, rtol=1e-12)


def test_exponents_of_zero_change_nothing(train: sp.csr_array) -> None:
    assert DegreeNormalisation.of(train, Exponents())(train) is train


def test_does_not_write_to_its_input(train: sp.csr_array) -> None:
    before = train.copy()
    DegreeNormalisation.of(train, Exponents(user=0.5, item=0.5))(train)
    np.testing.assert_array_equal(train.toarray(), before.toarray())


def test_nothing_to_normalise() -> None:
    empty = sp.csr_array((3, 5), dtype=np.float32)
    normalised = DegreeNormalisation.of(empty, Exponents(user=0.5, item=0.5))(empty)
    assert normalised.shape == (3, 5)
    assert normalised.nnz == 0


@pytest.mark.parametrize(("user", "item"), [(-0.1, 0.0), (0.0, 1.1), (float("nan"), 0.0)])
def test_exponents_out_of_range_are_refused(user: float, item: float) -> None:
    with pytest.raises(ValueError, match="exponents must lie in"):
        Exponents(user=user, item=item)
