"""The loss of a block of users and its gradients by hand, against autodiff of the plain formula."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.multinomial import Factor, MultinomialGradients, add_multinomial_gradients, marks
from tests import oracles

USERS, BUDGET, ITEMS = 11, 4, 23


def plain_loss(
    phi: jax.Array, beta: jax.Array, targets: jax.Array, left_out: jax.Array, weights: jax.Array
) -> jax.Array:
    scores = phi @ beta
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
        self.phi = rng.normal(size=(USERS, BUDGET)).astype(dtype)
        self.beta = 3 * rng.normal(size=(BUDGET, ITEMS)).astype(dtype)
        self.weights = rng.random(USERS).astype(dtype)

    def gradients(self, d_beta: jax.Array, factors: type) -> MultinomialGradients:
        phi, beta = (Factor.of(jnp.asarray(matrix), factors) for matrix in (self.phi, self.beta))
        marked = marks(sp.csr_array(self.targets), sp.csr_array(self.left_out))
        counts = self.targets.sum(axis=1).astype(self.phi.dtype)
        return add_multinomial_gradients(d_beta, phi, beta, marked, counts, self.weights)

    def expected(self) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
        """By autodiff, in float64."""
        with jax.enable_x64(True):
            arrays = [np.asarray(x, np.float64) for x in (self.targets, self.left_out, self.weights)]
            phi, beta = (jnp.asarray(x, jnp.float64) for x in (self.phi, self.beta))
            loss, gradients = jax.jit(jax.value_and_grad(plain_loss, argnums=(0, 1)))(phi, beta, *arrays)
            return float(loss), (np.asarray(gradients[0]), np.asarray(gradients[1]))


@pytest.mark.parametrize(
    ("factors", "tolerance"), [(jnp.float64, 1e-12), (jnp.float32, 2e-5), (jnp.bfloat16, 2e-2)], ids=str
)
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_loss_and_gradients_by_hand(
    factors: type, tolerance: float, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of rounded factors are those of the exact formula up to the rounding."""
    with jax.enable_x64(factors == jnp.float64):
        block = Block(np.float64 if factors == jnp.float64 else np.float32)
        loss, expected = block.expected()
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        already = np.ones_like(block.beta)
        losses, d_phi, d_beta = (np.asarray(x) for x in block.gradients(jnp.asarray(already), factors))
        monkeypatch.undo()
    scores = block.phi @ block.beta
    assert loss == pytest.approx(oracles.multinomial_loss(scores, block.targets, block.left_out, block.weights))
    assert float(losses.sum()) == pytest.approx(loss, rel=tolerance)
    for gradient, by_autodiff in zip((d_phi, d_beta - already), expected, strict=True):
        assert gradient.dtype == block.phi.dtype
        np.testing.assert_allclose(gradient, by_autodiff, atol=tolerance * np.abs(by_autodiff).max())


def test_scores_of_any_size_are_fine() -> None:
    block = Block(np.float32)
    block.beta *= 1e4
    for part in block.gradients(jnp.zeros(block.beta.shape), jnp.bfloat16):
        assert np.isfinite(part).all()
