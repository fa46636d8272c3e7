"""The inner solve and the outer gradient of Distill-CF against autodiff of the dense formula, in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels import multinomial, outer_loss
from infrec.kernels.ntk import NTK
from infrec.kernels.outer_loss import Batch, InnerModel, UsersLoss
from tests import oracles
from tests.processors import PROCESSORS, act_as

USERS, BUDGET, ITEMS = 40, 7, 31
LAM = 1e-3
trained = jax.jit(InnerModel.of, static_argnums=0)
pulled_back = jax.jit(InnerModel.pull_back, static_argnums=1)


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


@pytest.fixture(params=PROCESSORS)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    act_as(request.param, monkeypatch)
    kind: str = request.param
    return kind


@cache
def random_model() -> tuple[np.ndarray, np.ndarray]:
    """L⁻¹ and β."""
    rng = np.random.default_rng(2)
    return np.tril(rng.normal(size=(BUDGET, BUDGET))), rng.normal(size=(BUDGET, ITEMS))


@cache
def by_autodiff(ntk: NTK) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the loss of the dense formula under `random_model`, dS and dβ, in float64."""
    whitening, beta = random_model()
    with jax.enable_x64(True):
        exact = Problem(np.float64)
        formula = jax.value_and_grad(lambda s, b: exact.loss(ntk, s, whitening.T @ b), argnums=(0, 1))
        loss, (d_summary, d_beta) = jax.jit(formula)(exact.summary, beta)
    return float(loss), np.asarray(d_summary), np.asarray(d_beta)


@pytest.mark.parametrize(
    ("factors", "tolerance"), [(jnp.float64, 1e-7), (jnp.float32, 1e-3), (jnp.bfloat16, 2e-2)], ids=str
)
@pytest.mark.parametrize("ntk", [NTK(), NTK(depth=2, b_std=0.3)], ids=["depth 1", "depth 2"])
def test_gradients_of_users_are_those_of_the_dense_formula(
    processor: str, factors: type, tolerance: float, ntk: NTK
) -> None:
    loss, d_summary, d_beta = by_autodiff(ntk)
    with jax.enable_x64(factors == jnp.float64):
        problem = Problem(np.float64 if factors == jnp.float64 else np.float32)
        model = InnerModel(*(x.astype(problem.summary.dtype) for x in (problem.summary, *random_model())))
        found = UsersLoss(ntk, model, factors=factors).gradients(problem.batch)
    assert found.loss == pytest.approx(loss, rel=tolerance)
    np.testing.assert_allclose(found.coefficients, d_beta, atol=tolerance * np.abs(d_beta).max())
    whole = found.summary + 2 * found.squares[:, None] * problem.summary
    np.testing.assert_allclose(whole, d_summary, atol=tolerance * np.abs(d_summary).max())


def test_blocks_of_users_add_up(processor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(np.float32)
    batch = Batch(*(sp.vstack([matrix] * 7, format="csr") for matrix in problem.batch[:3]), np.tile(problem.weights, 7))
    model = InnerModel(problem.summary, np.eye(BUDGET, dtype=np.float32), problem.summary)
    once = UsersLoss(NTK(), model).gradients(problem.batch)
    for name in ("_CACHED", "_ON_DEVICE"):
        monkeypatch.setattr(outer_loss, name, 1)
    found = UsersLoss(NTK(), model).gradients(batch)  # 280 users in three blocks of up to 128
    for seven, one in zip(found, once, strict=True):
        np.testing.assert_allclose(seven, 7 * np.asarray(one), rtol=1e-3, atol=1e-3 * np.abs(one).max())


def test_blocks_of_like_size_share_one_compiled_function(processor: str) -> None:
    """The last block of anything is shorter, and a compilation takes longer than many blocks."""
    compiled: Any = multinomial._losses_and_d_scores if processor == "CPU" else multinomial._added
    problem = Problem(np.float32)
    model = InnerModel(problem.summary, np.eye(BUDGET, dtype=np.float32), problem.summary)
    loss = UsersLoss(NTK(), model)
    loss.gradients(problem.batch)
    times = compiled._cache_size()
    assert times > 0
    loss.gradients(Batch(*(matrix[: USERS - 3] for matrix in problem.batch)))
    assert compiled._cache_size() == times


def test_a_model_of_a_summary_is_that_of_the_oracle() -> None:
    with jax.enable_x64(True):
        summary = Problem(np.float64).summary[1:]
        kernel = oracles.ntk_matrix(summary, summary, depth=1, w_std=2**0.5, b_std=0.1).astype(float)
        ridge = LAM * np.trace(kernel) / len(kernel)
        model = trained(NTK(), summary, LAM)
        factor = np.linalg.inv(model.whitening)
        np.testing.assert_allclose(factor @ factor.T, kernel + ridge * np.eye(len(kernel)), rtol=1e-9)
        np.testing.assert_allclose(factor @ model.coefficients, summary, atol=1e-9)
        np.testing.assert_allclose(model.dual(), oracles.ridge_regression(kernel, summary, ridge), rtol=1e-6, atol=1e-9)


def test_the_gradient_through_model_and_users_is_that_of_finite_differences() -> None:
    with jax.enable_x64(True):
        problem = Problem(np.float64)
        summary = problem.summary[1:]
        direction = np.random.default_rng(4).normal(size=summary.shape)

        @jax.jit
        def loss(step: float) -> jax.Array:
            moved = summary + step * direction
            return problem.loss(NTK(), moved, 3 * InnerModel.of(NTK(), moved, 0.1).dual())

        h = 1e-6
        model = trained(NTK(), summary, 0.1)
        sharper = InnerModel(*(np.asarray(array) for array in model)).sharper(3.0)
        gradients = UsersLoss(NTK(), sharper, factors=jnp.float64).gradients(problem.batch)
        assert gradients.loss == pytest.approx(float(loss(0.0)), rel=1e-9)
        found = np.vdot(pulled_back(model, NTK(), 0.1, gradients), direction)
        assert found == pytest.approx(float(loss(h) - loss(-h)) / (2 * h), rel=1e-5)


@pytest.mark.parametrize("lam", [1e-5, 1e-3])
def test_rounded_factors_cost_no_more_than_float32_in_the_usual_form(lam: float) -> None:
    """The scores of a summary at a tiny λ, whose α are hundreds of times as great: why the features are white."""
    rng = np.random.default_rng(0)
    popularity = np.minimum(0.9, 0.05 * (rng.pareto(1.0, 300) + 0.05))
    users = rng.random((400, 300)) < popularity
    summary = np.clip(popularity + 0.05 * rng.normal(size=(100, 300)), 0, 1)  # much alike
    with jax.enable_x64(True):
        model = trained(NTK(), summary, lam)
        kernel = oracles.ntk_matrix(users.astype(float), summary, depth=1, w_std=2**0.5, b_std=0.1).astype(float)
        exact = kernel @ np.asarray(model.dual())
        white = kernel @ np.asarray(model.whitening).T, np.asarray(model.coefficients)
        usual = kernel, np.asarray(model.dual())

    def error(left: np.ndarray, right: np.ndarray) -> float:
        rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in (left, right)]
        return float(np.abs(rounded[0] @ rounded[1] - exact).max())

    assert error(*white) < 0.01
    assert error(*usual) > 10 * error(*white)


def test_gradients_are_finite_on_duplicate_empty_and_full_rows() -> None:
    problem = Problem(np.float32, kinks=True)

    full = np.ones_like(problem.summary)
    for summary in (problem.summary, full, np.zeros_like(full)):
        model = trained(NTK(), summary, 0.1)
        gradients = UsersLoss(NTK(), InnerModel(*(np.asarray(x) for x in model))).gradients(problem.batch)
        for part in (*gradients, pulled_back(model, NTK(), 0.1, gradients)):
            assert np.isfinite(part).all()
