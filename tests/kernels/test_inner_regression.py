"""Sampling, the solve and the way back on a CPU against autodiff of the plain formula, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infrec.kernels.inner_regression import InnerStep, solve_summary
from infrec.kernels.ntk import NTK
from infrec.kernels.outer_loss import Gradients, InnerModel
from infrec.kernels.sampler import Sampler, fill_with_noise
from tests import oracles

BUDGET, ITEMS, USERS = 9, 31, 20
LAM = 0.1
SEED, STEP = 3, 5


def inner_step(sampler: Sampler, ntk: NTK = NTK()) -> InnerStep:  # noqa: B008 (frozen)
    return InnerStep(sampler=sampler, ntk=ntk, sharpness=3.0, seed=SEED)


def random_loss() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a kernel of some users with the summary, held fixed, and dS and dP."""
    rng = np.random.default_rng(1)
    shapes = (USERS, BUDGET), (BUDGET, ITEMS), (USERS, ITEMS)
    kernel, d_summary, d_scores = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return kernel, d_summary, d_scores


def scores_of(model: InnerModel, kernel: np.ndarray) -> np.ndarray:
    return np.asarray(kernel @ model.whitening.T @ model.coefficients)


def gradients_of(model: InnerModel, kernel: np.ndarray, d_summary: np.ndarray, d_scores: np.ndarray) -> Gradients:
    d_beta = (kernel @ model.whitening.T).T @ d_scores
    return Gradients(0.0, d_beta, np.asfortranarray(d_summary), np.zeros(BUDGET, np.float32))


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1.5, size=(BUDGET, ITEMS)).astype(np.float32)


def plain_summary(sampler: Sampler, logits: jax.Array) -> jax.Array:
    """The sum of softmaxes with the noise that the step draws, cut off."""
    parts = []
    for group, rows in enumerate(sampler.group_rows(BUDGET)):
        w = np.empty((sampler.draws, ITEMS), np.float32)
        fill_with_noise(w, sampler.temperature, np.random.default_rng([SEED, STEP, group]))
        logs = logits[rows, None] / sampler.temperature + jnp.log(jnp.asarray(w, logits.dtype))
        parts.append(jax.nn.softmax(logs, axis=2).sum(axis=1))
    return jnp.minimum(jnp.concatenate(parts), 1.0)


@pytest.mark.parametrize("sampler", [Sampler(draws=6, temperature=0.5, groups=4), Sampler(draws=20, groups=1)], ids=str)
@pytest.mark.parametrize("ntk", [NTK(), NTK(depth=2, b_std=0.3)], ids=["depth 1", "depth 2"])
def test_a_step_and_the_way_back_are_those_of_the_plain_formula(sampler: Sampler, ntk: NTK, logits: np.ndarray) -> None:
    kernel, *weights = random_loss()
    found = inner_step(sampler, ntk).sampled(logits, LAM, STEP)
    gradient = found.pull_back(gradients_of(found.model, kernel, *weights))
    with jax.enable_x64(True):

        def plain(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
            summary = plain_summary(sampler, logits)
            return summary, kernel @ (3.0 * InnerModel.of(ntk, summary, LAM).dual())

        @jax.jit
        def there_and_back(logits: jax.Array, d: list[jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            (summary, scores), pull_back = jax.vjp(plain, logits)
            return summary, scores, *pull_back(tuple(d))

        in_float64 = (jnp.asarray(logits, jnp.float64), [jnp.asarray(x, jnp.float64) for x in weights])
        summary, scores, expected = (np.asarray(x) for x in there_and_back(*in_float64))
    assert ((summary == 1).any()) == (sampler.temperature < 1)
    np.testing.assert_allclose(found.model.summary, summary, atol=1e-5)
    np.testing.assert_allclose(scores_of(found.model, kernel), scores, atol=1e-4 * np.abs(scores).max())
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(inner_step(sampler, ntk).summary(logits, STEP), found.model.summary)


def test_an_accelerator_solves_and_goes_back_in_the_same_way(
    logits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its noise is another one: its scores are compared on its own sample, the way back with finite differences."""
    step = inner_step(Sampler(draws=6, temperature=2.0))
    kernel, *weights = random_loss()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = step.sampled(logits, LAM, STEP)
    gradient = found.pull_back(gradients_of(found.model, kernel, *weights))
    np.testing.assert_array_equal(step.summary(logits, STEP), found.model.summary)
    direction = np.sign(gradient) / gradient.size
    moved = [step.sampled(logits + h * direction, LAM, STEP).model for h in (0.5, -0.5)]
    values = [
        sum(float(np.vdot(w, x)) for w, x in zip(weights, (at.summary, scores_of(at, kernel)), strict=True))
        for at in moved
    ]
    assert values[0] - values[1] == pytest.approx(np.vdot(gradient, direction), rel=0.01)
    on_device = solve_summary(NTK(), found.model.summary, LAM)
    monkeypatch.undo()
    dual = solve_summary(NTK(), found.model.summary, LAM)
    np.testing.assert_allclose(on_device, dual, atol=1e-4)
    np.testing.assert_allclose(scores_of(found.model, kernel), 3.0 * kernel @ dual, atol=1e-4 * np.abs(dual).max())


def test_the_dual_is_that_of_ridge_regression(logits: np.ndarray) -> None:
    summary = np.abs(logits)
    kernel = oracles.ntk_matrix(summary, summary, depth=1, w_std=2**0.5, b_std=0.1).astype(float)
    expected = oracles.ridge_regression(kernel, summary, LAM * np.trace(kernel) / BUDGET)
    np.testing.assert_allclose(solve_summary(NTK(), summary, LAM), expected, atol=1e-4 * np.abs(expected).max())


def test_a_system_that_is_not_definite_has_no_finite_dual(logits: np.ndarray) -> None:
    assert not np.isfinite(solve_summary(NTK(), np.abs(logits), -1.0)).any()


def test_more_pieces_than_rows_are_none(logits: np.ndarray) -> None:
    """Budgets of one to three users."""
    for budget in (1, 2, 3):
        summary = np.abs(logits[:budget])
        kernel = oracles.ntk_matrix(summary, summary, depth=1, w_std=2**0.5, b_std=0.1).astype(float)
        expected = oracles.ridge_regression(kernel, summary, LAM * np.trace(kernel) / budget)
        np.testing.assert_allclose(solve_summary(NTK(), summary, LAM), expected, rtol=1e-3)


def test_noise_is_never_infinite() -> None:
    """An exponential of 0 happens once in some millions."""

    class Zeros(np.random.Generator):
        def standard_exponential(self, *, out: np.ndarray, dtype: type) -> None:  # type: ignore[override]
            out[:] = [0.0, 25.0, 1.0]

    w = np.empty((1, 3), np.float32)
    fill_with_noise(w, 0.25, Zeros(np.random.PCG64(0)))
    assert w[0, 0] == 1 and (w > 0).all()
