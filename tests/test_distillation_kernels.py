"""The inner solve and the outer gradient of Distill-CF against autodiff of the dense formula, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from kernels.distillation import (
    Batch,
    accelerator_block_gradients,
    block_gradients,
    loss_and_gradients,
    summary_dual,
    summary_kernel,
)
from kernels.ntk import NTK
from tests import oracles

USERS, BUDGET, ITEMS = 40, 7, 31
LAM = 1e-3


class Problem:
    """Real users whose rows include an empty one, a full one and two that are the same; a summary with duplicates.

    With `kinks`, rows of the summary are those of users, or empty: there the kernel has one-sided derivatives.
    """

    def __init__(self, dtype: type, *, kinks: bool = False) -> None:
        rng = np.random.default_rng(1)
        self.context = (rng.random((USERS, ITEMS)) < 0.3).astype(dtype)
        self.context[0], self.context[1], self.context[3] = 0, 1, self.context[2]
        self.targets = ((rng.random((USERS, ITEMS)) < 0.2) & (self.context == 0)).astype(dtype)
        self.summary = rng.random((BUDGET, ITEMS)).astype(dtype)
        self.summary[1] = self.summary[0]
        if kinks:
            self.summary[2] = 0
            self.summary[3] = self.context[2]
        self.weights = rng.random(USERS).astype(dtype)

    def loss(self, ntk: NTK, summary: jax.Array, dual: jax.Array) -> jax.Array:
        """The plain formula."""
        context = jnp.asarray(self.context)
        inner = context @ summary.T
        kernel = ntk(inner, (context * context).sum(1), (summary * summary).sum(1), items=ITEMS)
        scores = kernel @ dual
        lse = jax.nn.logsumexp(jnp.where(self.context > 0, -1e30, scores), axis=1)
        return jnp.sum(self.weights * (self.targets.sum(1) * lse - (self.targets * scores).sum(1)))

    @property
    def batch(self) -> Batch:
        context = sp.csr_array(self.context)
        return Batch(context, sp.csr_array(self.targets), context, self.weights)


@pytest.mark.parametrize("route", [block_gradients, accelerator_block_gradients])
@pytest.mark.parametrize(("x64", "tolerance"), [(True, 1e-7), (False, 1e-3)])
@pytest.mark.parametrize("ntk", [NTK(), NTK(depth=2, b_std=0.3)], ids=["depth 1", "depth 2"])
def test_block_gradients_are_those_of_the_dense_formula(route: object, x64: bool, tolerance: float, ntk: NTK) -> None:
    with jax.enable_x64(True):
        exact = Problem(np.float64)
        dual = np.random.default_rng(2).normal(size=(BUDGET, ITEMS))
        arguments = jnp.asarray(exact.summary), jnp.asarray(dual)
        loss, (d_summary, d_dual) = jax.value_and_grad(lambda s, a: exact.loss(ntk, s, a), argnums=(0, 1))(*arguments)
    with jax.enable_x64(x64):
        problem = Problem(np.float64 if x64 else np.float32)
        run = block_gradients if route is block_gradients else accelerator_block_gradients
        found = run(ntk, problem.summary, dual.astype(problem.summary.dtype), problem.batch)
    assert found.loss == pytest.approx(float(loss), rel=tolerance)
    np.testing.assert_allclose(found.dual, d_dual, atol=tolerance * np.abs(d_dual).max())
    np.testing.assert_allclose(found.summary, d_summary, atol=tolerance * np.abs(d_summary).max())


def test_blocks_of_like_size_share_one_compiled_function() -> None:
    """The last block of anything is shorter, and a compilation takes longer than many blocks."""
    problem = Problem(np.float32)
    dual = np.zeros_like(problem.summary)
    accelerator_block_gradients(NTK(), problem.summary, dual, problem.batch)
    compiled = loss_and_gradients._cache_size()
    shorter = Batch(*(matrix[: USERS - 3] for matrix in problem.batch))
    found = accelerator_block_gradients(NTK(), problem.summary, dual, shorter)
    assert loss_and_gradients._cache_size() == compiled
    assert found.loss == pytest.approx(block_gradients(NTK(), problem.summary, dual, shorter).loss, rel=1e-5)


def test_the_summary_kernel_and_its_dual_are_those_of_the_oracle() -> None:
    with jax.enable_x64(True):
        summary = Problem(np.float64).summary[1:]
        kernel = np.asarray(summary_kernel(NTK(), jnp.asarray(summary)))
        expected = oracles.ntk_matrix(summary, summary, depth=1, w_std=2**0.5, b_std=0.1).astype(float)
        np.testing.assert_allclose(kernel, expected, rtol=1e-9)
        found = summary_dual(NTK(), jnp.asarray(summary), LAM)
        ridge = LAM * np.trace(expected) / len(expected)
        np.testing.assert_allclose(found, oracles.ridge_regression(expected, summary, ridge), rtol=1e-6, atol=1e-9)


def test_the_gradient_through_the_solve_is_that_of_finite_differences() -> None:
    with jax.enable_x64(True):
        problem = Problem(np.float64)
        summary = problem.summary[1:]
        direction = np.random.default_rng(4).normal(size=summary.shape)

        def loss(step: jax.Array) -> jax.Array:
            moved = jnp.asarray(summary) + step * direction
            return problem.loss(NTK(), moved, summary_dual(NTK(), moved, 0.1))

        h = 1e-6
        expected = (loss(jnp.asarray(h)) - loss(jnp.asarray(-h))) / (2 * h)
        assert float(jax.grad(loss)(jnp.asarray(0.0))) == pytest.approx(float(expected), rel=1e-5)


def test_gradients_are_finite_on_duplicate_empty_and_full_rows() -> None:
    problem = Problem(np.float32, kinks=True)

    def through_the_solve(summary: jax.Array) -> jax.Array:
        return jnp.sum(summary_dual(NTK(), summary, 0.1) ** 2)

    assert np.isfinite(jax.grad(through_the_solve)(jnp.asarray(problem.summary))).all()
    full = np.ones_like(problem.summary)
    for summary in (problem.summary, full, np.zeros_like(full)):
        for part in block_gradients(NTK(), summary, full, problem.batch):
            assert np.isfinite(part).all()
