"""Top-k against a stable sort of whole rows."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.ranking import exclude, top_k
from tests import oracles

ITEMS = 40


def stable(scores: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 7, ITEMS - 1, ITEMS])
@pytest.mark.parametrize("levels", [1, 2, 5, 10_000], ids=lambda levels: f"{levels} levels")
def test_equals_a_stable_sort_with_any_number_of_ties(k: int, levels: int, dtype: type) -> None:
    scores = (np.random.default_rng(levels).integers(levels, size=(50, ITEMS)) - levels / 2).astype(dtype)
    found = top_k(scores, k)
    np.testing.assert_array_equal(found, stable(scores, k))
    assert found[0].tolist() == oracles.ranking(scores[0].tolist(), k)


@pytest.mark.parametrize("levels", [2, 30, 10**6], ids=lambda levels: f"{levels} levels")
@pytest.mark.parametrize("k", [1, 10, 100])
def test_equals_a_stable_sort_of_a_wide_catalogue(k: int, levels: int) -> None:
    """Also where the best lie side by side, where one user has nothing but ties and where another has too few items."""
    scores = np.random.default_rng(k).integers(levels, size=(40, 3001)).astype(np.float32)
    scores[:10].sort()
    scores[10], scores[11, 5:], scores[12] = 1, -np.inf, -np.inf
    np.testing.assert_array_equal(top_k(scores, k), stable(scores, k))


@pytest.mark.parametrize("k", [1, 5, 20, ITEMS])
def test_excluded_items_come_last_in_the_order_of_their_indices(k: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(3, size=(30, ITEMS)).astype(np.float32)
    seen = sp.csr_array((rng.random((30, ITEMS)) < np.linspace(0, 1, 30)[:, None]).astype(np.float32))
    exclude(scores, seen)
    assert (np.isneginf(scores) == (seen.toarray() == 1)).all()
    np.testing.assert_array_equal(top_k(scores, k), stable(scores, k))


def test_excludes_nothing_else() -> None:
    scores = np.arange(12.0).reshape(3, 4)
    exclude(scores, sp.csr_array(np.array([[0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]])))
    np.testing.assert_array_equal(scores, [[0, 1, 2, 3], [-np.inf, 5, 6, -np.inf], [8, 9, 10, 11]])


@pytest.mark.parametrize("k", [0, -1, ITEMS + 1])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"1 … {ITEMS}"):
        top_k(np.zeros((2, ITEMS)), k)


def test_no_users() -> None:
    assert top_k(np.zeros((0, ITEMS)), 3).shape == (0, 3)


def test_scores_must_be_a_matrix_of_floats() -> None:
    with pytest.raises(TypeError, match="scores"):
        top_k(np.zeros(ITEMS), 3)
