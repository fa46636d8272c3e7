"""EASE's closed form against its definition: each item regressed on all others."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.ease import item_gram, item_weights
from infrec.kernels.tiles import ArrayTiles, Layout, NotPositiveDefinite
from tests import oracles
from tests.matrices import taste_matrix
from tests.tolerances import assert_solved


@pytest.mark.parametrize("items", [15, 16, 40])
@pytest.mark.parametrize("lam", [0.5, 50.0])
def test_weights_are_the_regression_of_each_item_on_the_others(items: int, lam: float) -> None:
    train = taste_matrix(80, items, seed=0, per_user=6)
    layout = Layout(items, 16)
    gram, inverse = ArrayTiles(layout), ArrayTiles(layout)
    weights = np.empty((items, items), np.float32)
    item_gram(train, layout, gram)
    item_weights(gram, layout, lam, inverse, weights)
    dense = train.toarray().astype(np.float64)
    condition = np.linalg.cond(dense.T @ dense + lam * np.eye(items))
    assert_solved(weights, oracles.ease_weights(dense, lam), condition=float(condition))
    np.testing.assert_array_equal(np.diag(weights), 0)


def test_item_gram_counts_exactly() -> None:
    train = taste_matrix(300, 40, seed=1, per_user=10)
    layout = Layout(40, 16)
    gram = ArrayTiles(layout)
    item_gram(train, layout, gram)
    counts = (train.T @ train).toarray()
    for i, j in layout.lower():
        np.testing.assert_array_equal(gram[i, j], counts[layout.span(i), layout.span(j)])


def test_an_item_without_interactions_needs_a_ridge() -> None:
    train = sp.csr_array(np.array([[1, 0, 1], [0, 0, 1]], np.float32))
    layout = Layout(3, 16)
    gram = ArrayTiles(layout)
    item_gram(train, layout, gram)
    weights = np.empty((3, 3), np.float32)
    with pytest.raises(NotPositiveDefinite):
        item_weights(gram, layout, 0.0, ArrayTiles(layout), weights)
    item_weights(gram, layout, 1.0, ArrayTiles(layout), weights)
    assert np.isfinite(weights).all()
    assert not weights[1].any()
    assert not weights[:, 1].any()
