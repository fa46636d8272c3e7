"""The loss of a block of users and its gradients by hand, against autodiff of the plain formula."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.multinomial import MultinomialSums, marks, multinomial_sums
from tests import oracles
from tests.processors import PROCESSORS, act_as

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

    def sums(self, factors: type, *, times: int = 1) -> tuple[MultinomialSums, np.ndarray]:
        """Return the sums of the block, added so many times, and its dΦ."""
        sums = multinomial_sums(self.beta, factors)
        marked = marks(sp.csr_array(self.targets), sp.csr_array(self.left_out))
        counts = self.targets.sum(axis=1).astype(self.phi.dtype)
        d_phi = [np.asarray(sums.add(jnp.asarray(self.phi), marked, counts, self.weights)) for _ in range(times)]
        return sums, d_phi[-1]

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
@pytest.mark.parametrize("processor", PROCESSORS)
def test_loss_and_gradients_by_hand(
    factors: type, tolerance: float, processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of rounded factors are those of the exact formula up to the rounding."""
    with jax.enable_x64(factors == jnp.float64):
        block = Block(np.float64 if factors == jnp.float64 else np.float32)
        loss, expected = block.expected()
        act_as(processor, monkeypatch)
        sums, d_phi = block.sums(factors, times=3)
        monkeypatch.undo()
    scores = block.phi @ block.beta
    assert loss == pytest.approx(oracles.multinomial_loss(scores, block.targets, block.left_out, block.weights))
    assert sums.loss() == pytest.approx(3 * loss, rel=tolerance)
    for gradient, by_autodiff in zip((d_phi, sums.d_beta() / 3), expected, strict=True):
        assert gradient.dtype == block.phi.dtype
        np.testing.assert_allclose(gradient, by_autodiff, atol=tolerance * np.abs(by_autodiff).max())


def test_one_kind_of_cpu_rounds_like_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Factors are rounded to the same numbers, so that only the order of sums is another.

    No large entry of dP is so near the middle between two bfloat16 numbers that the order of sums could round it
    otherwise.
    """
    block, found = Block(np.float32), {}
    for processor in ("CPU", "CPU with bfloat16"):
        act_as(processor, monkeypatch)
        sums, d_phi = block.sums(jnp.bfloat16)
        found[processor] = d_phi, sums.d_beta()
    for one, other in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max())


def test_scores_of_any_size_are_fine() -> None:
    block = Block(np.float32)
    block.beta *= 1e4
    sums, d_phi = block.sums(jnp.bfloat16)
    for part in (sums.loss(), sums.d_beta(), d_phi):
        assert np.isfinite(part).all()
