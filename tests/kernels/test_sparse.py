"""Products of sparse with dense matrices, in wide strips and in narrow ones."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels import sparse
from infrec.kernels.sparse import has_entries
from tests.matrices import taste_matrix


@pytest.mark.parametrize("cache", [1, 1 << 20])
@pytest.mark.parametrize("empty", [0, 60])
def test_products_are_those_of_dense_matrices(cache: int, empty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where most rows have no entries."""
    monkeypatch.setattr(sparse, "_STRIP_BYTES", cache)
    left = taste_matrix(70, 60, seed=0)
    left = sp.csr_array(sp.vstack([left[:3], sp.csr_array((empty, 60), dtype=np.float32), left[3 : 70 - empty]]))
    right = np.random.default_rng(0).standard_normal((60, 300)).astype(np.float32)
    expected = left.toarray() @ right
    np.testing.assert_allclose(sparse.product(left, right), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sparse.transposed_product(left, right), expected.T, rtol=1e-4, atol=1e-5)
    total = np.ones((300, 70))
    sparse.add_transposed_product(left, right, total)
    np.testing.assert_allclose(total, 1 + expected.T, rtol=1e-4, atol=1e-5)


def test_has_entries_where_the_matrix_has_them() -> None:
    """In any order of the stored entries, in rows without any, and at the ends."""
    random = np.random.default_rng(4)
    dense = random.random((30, 9)) < 0.3
    dense[[0, 7, 29]] = False
    matrix = sp.csr_array(dense.astype(np.float32))
    for row in range(30):
        span = slice(*matrix.indptr[row : row + 2])
        matrix.indices[span] = matrix.indices[span][::-1]
    matrix.has_sorted_indices = False
    columns = random.integers(9, size=(30, 20))
    columns[:, :2] = 0, 8
    np.testing.assert_array_equal(has_entries(matrix, columns), np.take_along_axis(dense, columns, axis=1))
    assert not has_entries(sp.csr_array((3, 9), dtype=np.float32), columns[:3]).any()
