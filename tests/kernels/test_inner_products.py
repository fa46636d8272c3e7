"""Every route to the inner products gives what the dense product gives, and the density chooses the route."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels import inner_products as routes
from infrec.kernels.inner_products import (
    accelerator_inner_products,
    dense_inner_products,
    inner_products,
    product_operand,
    squared_norms,
)
from tests.tolerances import assert_entries_close

ROUTES = ["_dense_dense", "_sparse_dense", "_sparse_sparse"]


def random_rows(users: int, items: int, density: float, *, seed: int, fractional: bool = False) -> sp.csr_array:
    rng = np.random.default_rng(seed)
    rows = sp.random_array((users, items), density=density, format="csr", dtype=np.float32, rng=rng)
    rows.data = rng.random(rows.nnz).astype(np.float32) if fractional else np.ones(rows.nnz, np.float32)
    return rows


def naive(rows: sp.csr_array, columns: sp.csr_array) -> np.ndarray:
    return rows.toarray().astype(np.float64) @ columns.toarray().astype(np.float64).T


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The routes that `inner_products` takes, in order."""
    log: list[str] = []
    for name in ROUTES:
        route = getattr(routes, name)

        def logged(rows: sp.csr_array, columns: sp.csr_array, *, name: str = name, route=route) -> np.ndarray:
            log.append(name)
            return route(rows, columns)

        monkeypatch.setattr(routes, name, logged)
    return log


@pytest.mark.parametrize(
    ("shape", "density", "route"),
    [
        ((200, 300), 0.5, "_dense_dense"),
        ((500, 2000), 0.1, "_sparse_dense"),
        ((60, 50_000), 1e-4, "_sparse_sparse"),
    ],
)
def test_the_density_chooses_the_route(shape: tuple, density: float, route: str, taken: list[str]) -> None:
    rows, columns = random_rows(*shape, density, seed=0), random_rows(*shape, density, seed=1)
    products = inner_products(rows, columns)
    assert taken == [route]
    assert products.dtype == np.float32
    np.testing.assert_array_equal(products, naive(rows, columns))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("fractional", [False, True], ids=["binary", "fractional"])
def test_each_route_equals_the_dense_product(route: str, fractional: bool) -> None:
    rows = random_rows(23, 70, 0.2, seed=2, fractional=fractional)
    columns = random_rows(31, 70, 0.3, seed=3, fractional=fractional)
    products = getattr(routes, route)(rows, columns)
    assert type(products) is np.ndarray
    assert products.shape == (23, 31)
    assert_entries_close(products, naive(rows, columns))


@pytest.mark.parametrize("density", [0.0, 0.001, 0.3, 1.0])
def test_empty_rows_and_blocks(density: float) -> None:
    rows, columns = random_rows(5, 40, density, seed=4), random_rows(7, 40, 0.5, seed=5)
    for multiply in (inner_products, accelerator_inner_products):
        np.testing.assert_array_equal(multiply(rows, columns), naive(rows, columns))
        np.testing.assert_array_equal(multiply(columns, rows), naive(columns, rows))


def test_double_precision_is_kept() -> None:
    rows = random_rows(6, 50, 0.3, seed=6, fractional=True).astype(np.float64)
    products = inner_products(rows, rows)
    assert products.dtype == np.float64
    assert_entries_close(products, naive(rows, rows))


def test_same_blocks_give_the_same_bytes() -> None:
    rows = random_rows(64, 400, 0.2, seed=7, fractional=True)
    assert inner_products(rows, rows).tobytes() == inner_products(rows.copy(), rows.copy()).tobytes()


def test_squared_norms_are_the_diagonal() -> None:
    for fractional in (False, True):
        rows = random_rows(20, 60, 0.3, seed=8, fractional=fractional)
        squares = squared_norms(rows)
        assert squares.dtype == np.float32
        assert_entries_close(squares, np.diag(naive(rows, rows)))


def test_accelerator_counts_are_exact_where_int8_and_bfloat16_end() -> None:
    """Rows that share up to 3,001 items: an int8 holds 127, a bfloat16 counts to 256."""
    rows = random_rows(12, 3001, 0.7, seed=9)
    rows = sp.csr_array(sp.vstack([rows, np.ones((1, 3001), np.float32)]))
    products = accelerator_inner_products(rows, rows)
    assert isinstance(products, jax.Array)
    assert products.dtype == np.float32
    assert products[-1, -1] == 3001
    np.testing.assert_array_equal(products, naive(rows, rows))


@pytest.mark.parametrize("fractional", [False, True], ids=["binary", "fractional"])
def test_accelerator_operands_fill_whole_words_and_lie_where_they_are_for_many_products(fractional: bool) -> None:
    rows, columns = (random_rows(9, 3001, 0.3, seed=seed, fractional=fractional) for seed in (12, 13))
    left, right = product_operand(rows), product_operand(columns)
    assert left.shape == right.shape == (9, 3008)
    assert left.dtype == (np.float32 if fractional else np.int8)
    np.testing.assert_array_equal(dense_inner_products(left, right), accelerator_inner_products(rows, columns))
    np.testing.assert_array_equal(left[:, :3001], rows.toarray())


@pytest.mark.parametrize(("left", "right"), [(True, True), (True, False), (False, True)])
def test_accelerator_multiplies_fractional_rows_in_full_precision(left: bool, right: bool) -> None:
    rows = random_rows(10, 500, 0.4, seed=10, fractional=left)
    columns = random_rows(14, 500, 0.4, seed=11, fractional=right)
    assert_entries_close(accelerator_inner_products(rows, columns), naive(rows, columns))
