"""The loss of a block of users and its gradients by hand, against autodiff of the plain formula."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from kernels import multinomial
from kernels.distillation import entries
from kernels.multinomial import multinomial_gradients, multinomial_loss
from tests import oracles

USERS, BUDGET, ITEMS = 11, 4, 23


def plain_loss(
    kernel: jax.Array, dual: jax.Array, targets: np.ndarray, left_out: np.ndarray, weights: np.ndarray
) -> jax.Array:
    scores = kernel @ dual
    lse = jax.nn.logsumexp(jnp.where(left_out > 0, -1e30, scores), axis=1)
    return jnp.sum(weights * (targets.sum(axis=1) * lse - (targets * scores).sum(axis=1)))


class Block:
    """Random users, the first without targets, the second with all items left out, the third with all as targets."""

    def __init__(self, dtype: type) -> None:
        rng = np.random.default_rng(0)
        kind = rng.choice(3, size=(USERS, ITEMS), p=[0.5, 0.2, 0.3])
        kind[0][kind[0] == 1] = 0
        kind[1], kind[2] = 2, 1
        self.targets, self.left_out = ((kind == code).astype(dtype) for code in (1, 2))
        self.kernel = rng.normal(size=(USERS, BUDGET)).astype(dtype)
        self.dual = 3 * rng.normal(size=(BUDGET, ITEMS)).astype(dtype)
        self.weights = rng.random(USERS).astype(dtype)

    @property
    def sparse(self) -> tuple[sp.csr_array, sp.csr_array]:
        return sp.csr_array(self.targets), sp.csr_array(self.left_out)

    def expected(self) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
        """By autodiff, in float64."""
        with jax.enable_x64(True):
            arrays = [np.asarray(x, np.float64) for x in (self.targets, self.left_out, self.weights)]
            kernel, dual = (jnp.asarray(x, jnp.float64) for x in (self.kernel, self.dual))
            loss, gradients = jax.value_and_grad(plain_loss, argnums=(0, 1))(kernel, dual, *arrays)
            return float(loss), (np.asarray(gradients[0]), np.asarray(gradients[1]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)])
@pytest.mark.parametrize("height", [1, 3, 100], ids=lambda height: f"{height} users at once")
def test_loss_and_gradients_by_hand(
    dtype: type, tolerance: float, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multinomial, "_BLOCK_ENTRIES", height * ITEMS)
    monkeypatch.setattr(multinomial, "_CACHED_ENTRIES", 2 * ITEMS)
    block = Block(dtype)
    loss, (d_kernel, d_dual) = block.expected()
    found = multinomial_gradients(block.kernel, block.dual, *block.sparse, block.weights)
    scores = block.kernel @ block.dual
    assert loss == pytest.approx(oracles.multinomial_loss(scores, block.targets, block.left_out, block.weights))
    assert found.loss == pytest.approx(loss, rel=tolerance)
    assert found.kernel.dtype == found.dual.dtype == dtype
    np.testing.assert_allclose(found.kernel, d_kernel, atol=tolerance * np.abs(d_kernel).max())
    np.testing.assert_allclose(found.dual, d_dual, atol=tolerance * np.abs(d_dual).max())


@pytest.mark.parametrize(("x64", "tolerance"), [(True, 1e-12), (False, 2e-5)])
def test_the_custom_derivative_is_the_same(x64: bool, tolerance: float) -> None:
    with jax.enable_x64(x64):
        block = Block(np.float64 if x64 else np.float32)
        loss, expected = block.expected()
        targets, left_out = (entries(matrix) for matrix in block.sparse)
        arguments = jnp.asarray(block.kernel), jnp.asarray(block.dual), targets, left_out, jnp.asarray(block.weights)
        found, gradients = jax.value_and_grad(lambda *a: 2 * multinomial_loss(*a), argnums=(0, 1))(*arguments)
    gradients = tuple(np.asarray(gradient) for gradient in gradients)
    assert float(found) == pytest.approx(2 * loss, rel=tolerance)
    for gradient, by_autodiff in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, 2 * by_autodiff, atol=2 * tolerance * np.abs(by_autodiff).max())


def test_scores_of_any_size_are_fine() -> None:
    block = Block(np.float32)
    loss, d_kernel, d_dual = multinomial_gradients(block.kernel, 1e4 * block.dual, *block.sparse, block.weights)
    assert np.isfinite(loss) and np.isfinite(d_kernel).all() and np.isfinite(d_dual).all()
