"""Products of sparse with dense matrices, in wide strips and in narrow ones."""

from __future__ import annotations

import numpy as np
import pytest

from infrec.kernels import sparse
from tests.matrices import taste_matrix


@pytest.mark.parametrize("cache", [1, 1 << 20])
def test_products_are_those_of_dense_matrices(cache: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_STRIP_BYTES", cache)
    left = taste_matrix(70, 60, seed=0)
    right = np.random.default_rng(0).standard_normal((60, 300)).astype(np.float32)
    expected = left.toarray() @ right
    np.testing.assert_allclose(sparse.product(left, right), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sparse.transposed_product(left, right), expected.T, rtol=1e-4, atol=1e-5)
    total = np.ones((300, 70))
    sparse.add_transposed_product(left, right, total)
    np.testing.assert_allclose(total, 1 + expected.T, rtol=1e-4, atol=1e-5)
