"""The NTK against its literal recursion, in both precisions, and its gradients where it has kinks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.inner_products import product_operand
from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel, kernel_block, kernel_diagonal_block
from infrec.kernels.ntk import NTK, ntk_block
from tests import oracles
from tests.tolerances import FINITE_DIFFERENCE, GRADIENT, assert_entries_close

NETWORKS = [
    *({"depth": depth, "w_std": math.sqrt(2), "b_std": 0.1} for depth in (1, 2, 3, 4)),
    {"depth": 1, "w_std": 1.1, "b_std": 0.7},
    {"depth": 3, "w_std": 1.9, "b_std": 0.3},
    {"depth": 2, "w_std": 1.0, "b_std": 0.0},
]
SOME_NETWORKS = [NETWORKS[0], NETWORKS[1], NETWORKS[-1]]


@pytest.fixture(autouse=True)
def strict_promotion() -> Iterator[None]:
    """No precision is lost or gained unnoticed."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype]:
    with jax.enable_x64(request.param == np.float64):
        yield np.dtype(request.param)


def binary_rows(users: int, items: int, *, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((users, items)) < rng.uniform(0.05, 0.6, (users, 1))).astype(float)


def fractional_rows(users: int, items: int, *, seed: int) -> np.ndarray:
    """Multiples of 1/64: float32 holds their inner products exactly, so only the formula is tested."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, 64, (users, items)) / 64 * binary_rows(users, items, seed=seed + 1)


def kernel(network: NTK, rows: np.ndarray, columns: np.ndarray, dtype: np.dtype) -> jax.Array:
    """K by way of exact inner products, rounded once to `dtype`."""
    inner = jnp.asarray(rows @ columns.T, dtype)
    squares = [jnp.asarray((block**2).sum(axis=1), dtype) for block in (rows, columns)]
    return ntk_block(network, inner, *squares, items=rows.shape[1])


def differentiable_kernel(network: NTK, rows: jax.Array, columns: jax.Array) -> jax.Array:
    inner = jnp.matmul(rows, columns.T, precision="highest")
    return network(inner, jnp.sum(rows**2, axis=1), jnp.sum(columns**2, axis=1), items=rows.shape[1])


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("make", [binary_rows, fractional_rows])
def test_equals_the_literal_recursion(network: dict, make, dtype: np.dtype) -> None:
    rows, columns = make(7, 60, seed=0), make(9, 60, seed=5)
    columns[3], columns[4] = rows[2], 0
    assert_entries_close(kernel(NTK(**network), rows, columns, dtype), oracles.ntk_matrix(rows, columns, **network))


@pytest.mark.parametrize("depth", [1, 3])
def test_near_duplicates_keep_their_precision(depth: int, dtype: np.dtype) -> None:
    """Users that differ in one item of thousands are told apart to the rounding of the result.

    K(x, x) − K(x, y) is what tells them apart; the textbook's arccos loses digits of it in 1 − cos² t.
    """
    items = 100_000
    rows = (np.arange(items) < np.linspace(20_000, 80_000, 8)[:, None].round()).astype(float)
    columns = rows.copy()
    columns[:, -1] = 1
    network = {"depth": depth, "w_std": math.sqrt(2), "b_std": 0.1}
    same, exact = (
        np.array([oracles.ntk_pair(x, y, **network) for x, y in zip(rows, others, strict=True)])
        for others in (rows, columns)
    )
    computed = np.diag(kernel(NTK(**network), rows, columns, dtype))
    assert_entries_close(computed, exact)
    error = np.abs(computed - exact)
    assert error.max() < 4 * np.finfo(dtype).eps * same.max()
    if depth == 1:
        textbook = np.array([_arccos_ntk(x, y, dtype.type) for x, y in zip(rows, columns, strict=True)])
        assert np.abs(textbook - exact).max() > 5 * error.max()


def _arccos_ntk(x: np.ndarray, y: np.ndarray, real: type) -> np.floating:
    """The textbook formula for depth 1 in the precision `real`."""
    w, bias, pi = real(2 / len(x)), real(0.01), real(np.pi)
    q, q_xx, q_yy = (w * real(inner) + bias for inner in (x @ y, x @ x, y @ y))
    p = np.sqrt(q_xx * q_yy)
    t = np.arccos(min(q / p, real(1)))
    return q * (pi - t) / pi + p * (np.sin(t) + (pi - t) * np.cos(t)) / pi + bias


@pytest.mark.parametrize("network", SOME_NETWORKS, ids=str)
def test_diagonal_is_the_kernel_of_a_row_with_itself(network: dict, dtype: np.dtype) -> None:
    rows = binary_rows(6, 50, seed=3)
    rows[0], rows[1] = 0, 1
    squares = jnp.asarray((rows**2).sum(axis=1), dtype)
    diagonal = NTK(**network).diagonal(squares, items=50)
    assert_entries_close(diagonal, np.array([oracles.ntk_pair(row, row, **network) for row in rows]))
    assert_entries_close(np.diag(kernel(NTK(**network), rows, rows, dtype)), np.asarray(diagonal))


@pytest.mark.parametrize("depth", [1, 2])
def test_gram_is_positive_semidefinite(depth: int, dtype: np.dtype) -> None:
    rows = binary_rows(40, 30, seed=4)
    rows[10] = rows[20] = rows[30]
    gram = np.asarray(kernel(NTK(depth=depth), rows, rows, dtype), np.float64)
    np.testing.assert_array_equal(gram, gram.T)
    eigenvalues = np.linalg.eigvalsh(gram)
    assert eigenvalues[0] > -len(gram) * np.finfo(dtype).eps * eigenvalues[-1]


def test_compiled_kernel_is_the_kernel(dtype: np.dtype) -> None:
    rows = binary_rows(5, 20, seed=6).astype(dtype)
    inner, squares = rows @ rows.T, (rows**2).sum(axis=1)
    compiled = ntk_block(NTK(depth=2), inner, squares, squares, items=20)
    assert compiled.dtype == dtype
    assert_entries_close(compiled, oracles.ntk_matrix(rows, rows, depth=2, w_std=math.sqrt(2), b_std=0.1))


def test_blocks_of_sparse_rows() -> None:
    rows, columns = binary_rows(6, 40, seed=7), binary_rows(4, 40, seed=8)
    network = {"depth": 1, "w_std": math.sqrt(2), "b_std": 0.1}
    left, right = (KernelRows.of(sp.csr_array(block.astype(np.float32))) for block in (rows, columns))
    block = kernel_block(NTK(), left, right)
    assert isinstance(block, np.ndarray)
    assert_entries_close(block, oracles.ntk_matrix(rows, columns, **network))
    np.testing.assert_array_equal(kernel_block(NTK(), left[1:3], right), block[1:3])


@pytest.mark.parametrize("density", [1.0, 0.03])
def test_landmarks_laid_out_once(density: float) -> None:
    """More of them than the columns of a strip, with weights, dense and sparse; users with no item, and with all."""
    rng = np.random.default_rng(3)
    users = binary_rows(6, 40, seed=7)
    users[0], users[1] = 0, 1
    weights = (binary_rows(300, 40, seed=8) * rng.random((300, 40))).astype(np.float32)
    weights *= rng.random(weights.shape) < density
    rows, landmarks = (KernelRows.of(sp.csr_array(block.astype(np.float32))) for block in (users, weights))
    on_cpu, padded = LandmarkKernel.of(NTK(), landmarks), landmarks.padded()
    assert isinstance(on_cpu.operand, sp.csr_array) == (density < 1)
    on_accelerator = LandmarkKernel(NTK(), 300, padded.squares, product_operand(padded.rows))
    for kernel in (on_cpu, on_accelerator):
        block = kernel(rows)
        assert block.shape == (6, 300)
        assert_entries_close(block, oracles.ntk_matrix(users, weights, depth=1, w_std=math.sqrt(2), b_std=0.1))
        np.testing.assert_allclose(block, kernel_block(NTK(), rows, landmarks), rtol=1e-5)


def test_diagonal_block_ignores_the_rounding_of_fractional_products() -> None:
    rng = np.random.default_rng(9)
    rows = (binary_rows(30, 500, seed=9) * rng.random((30, 500))).astype(np.float32)
    block = kernel_diagonal_block(NTK(), KernelRows.of(sp.csr_array(rows)))
    exact = [oracles.ntk_pair(row, row, depth=1, w_std=math.sqrt(2), b_std=0.1) for row in rows]
    assert_entries_close(np.diag(block), np.array(exact))


@pytest.mark.parametrize("network", SOME_NETWORKS, ids=str)
def test_gradient_equals_finite_differences(network: dict) -> None:
    with jax.enable_x64(True):
        rng = np.random.default_rng(10)
        rows = jnp.asarray(rng.random((4, 12)))
        columns = jnp.asarray(np.vstack([binary_rows(5, 12, seed=11), rng.random((1, 12))]))
        weights = jnp.asarray(rng.standard_normal((4, 6)))

        def objective(rows: jax.Array) -> jax.Array:
            return jnp.sum(weights * differentiable_kernel(NTK(**network), rows, columns))

        gradient = np.asarray(jax.jit(jax.grad(objective))(rows))
        differences = np.empty_like(gradient)
        compiled = jax.jit(objective)
        for index in np.ndindex(*gradient.shape):
            step = jnp.zeros_like(rows).at[index].set(1e-5)
            differences[index] = (compiled(rows + step) - compiled(rows - step)) / 2e-5
    np.testing.assert_allclose(gradient, differences, atol=FINITE_DIFFERENCE * np.abs(differences).max())


@pytest.mark.parametrize("network", SOME_NETWORKS, ids=str)
def test_gradients_are_finite_at_the_kinks(network: dict, dtype: np.dtype) -> None:
    """Identical rows, all-zero rows, full rows, and every row with itself."""
    rows = fractional_rows(8, 30, seed=12)
    rows[1], rows[2], rows[3], rows[4], rows[5] = rows[0], 0, 0, 1, 1

    def objective(rows: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(differentiable_kernel(NTK(**network), rows, rows)))

    gradient = jax.jit(jax.grad(objective))(jnp.asarray(rows, dtype))
    assert np.isfinite(gradient).all()
    assert np.any(gradient)


@pytest.mark.parametrize("depth", [1, 2])
def test_gradient_along_the_diagonal_is_that_of_its_formula(depth: int, dtype: np.dtype) -> None:
    """K(x, x) is smooth in x, although K(x, y) has a kink at y = x."""
    rows = jnp.asarray(fractional_rows(5, 40, seed=13), dtype)
    network = NTK(depth=depth)

    @jax.jit
    @jax.grad
    def through_kernel(rows: jax.Array) -> jax.Array:
        return jnp.trace(differentiable_kernel(network, rows, rows))

    @jax.jit
    @jax.grad
    def through_formula(rows: jax.Array) -> jax.Array:
        return jnp.sum(network.diagonal(jnp.sum(rows**2, axis=1), items=40))

    expected = through_formula(rows)
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(through_kernel(rows), expected, atol=GRADIENT[dtype] * scale)


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0},
        {"w_std": 0.0},
        {"w_std": -1.0},
        {"b_std": -0.1},
        {"w_std": math.nan},
        {"b_std": math.nan},
    ],
    ids=str,
)
def test_impossible_networks_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        NTK(**wrong)


def test_shapes_are_checked_at_run_time() -> None:
    """The annotations of kernels/ hold for NumPy and JAX arrays in this test run."""
    squares = jnp.ones(3)
    with pytest.raises(TypeError, match="column_squares"):
        NTK()(jnp.ones((3, 4)), squares, squares, items=5)
    with pytest.raises(TypeError, match="squares"):
        KernelRows(sp.csr_array(np.eye(3, dtype=np.float32)), np.ones((3, 3), np.float32))
