"""The sampler of two matrix products against the literal one: the same distribution, from cold to hot."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infrec.kernels.inner_regression import InnerStep
from infrec.kernels.ntk import NTK
from infrec.kernels.sampler import LEAST_TEMPERATURE, Sampler, union_of_draws
from tests import oracles

REPETITIONS = 600
COPIES = 20
DEVIATIONS = 5.0
"""Standard errors that the largest of some hundred differences stays within."""


@pytest.fixture(scope="module")
def logits() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(0, 1.5, size=(6, 15)), jnp.float32)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 2.0, 10.0])
@pytest.mark.parametrize(("draws", "groups"), [(3, 1), (12, 4)])
@pytest.mark.parametrize("device", ["cpu", "accelerator"])
def test_mean_and_variance_are_those_of_the_literal_sampler(
    logits: jax.Array, temperature: float, draws: int, groups: int, device: str
) -> None:
    sampler = Sampler(draws=draws, temperature=temperature, groups=groups)
    if device == "cpu":  # groups of rows have noise of their own, so that copies in other groups are repetitions
        inner = InnerStep(sampler=replace(sampler, groups=groups * COPIES), ntk=NTK(), sharpness=1.0, seed=1)
        rows = np.tile(np.asarray(logits), (COPIES, 1))
        samples = [inner.summary(rows, step) for step in range(REPETITIONS // COPIES)]
        found = np.concatenate(samples, dtype=np.float64).reshape(REPETITIONS, *logits.shape)
    else:
        keys = jax.random.split(jax.random.key(1), REPETITIONS)
        found = np.asarray(jax.jit(jax.vmap(lambda key: sampler(logits, key)))(keys), np.float64)
    rng = np.random.default_rng(2)
    literal = [
        oracles.multi_gumbel(np.asarray(logits), draws=draws, temperature=temperature, rng=rng)
        for _ in range(REPETITIONS)
    ]
    expected = np.array(literal)
    for moment in (lambda s: s, lambda s: (s - expected.mean(axis=0)) ** 2):
        ours, theirs = moment(found), moment(expected)
        error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / REPETITIONS)
        assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) <= DEVIATIONS * error + 1e-6).all()


@pytest.mark.parametrize("temperature", [LEAST_TEMPERATURE, 1.0, 10.0])
def test_with_the_same_noise_it_is_the_sum_of_softmaxes(logits: jax.Array, temperature: float) -> None:
    noise = np.random.default_rng(3).gumbel(size=(9, logits.shape[1])).astype(np.float32)
    found = union_of_draws(logits, jnp.asarray(noise), temperature)
    expected = jax.nn.softmax((logits[:, None] + noise[None]) / temperature, axis=2).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


def test_rows_are_probabilities_that_add_up_to_at_most_the_draws(logits: jax.Array) -> None:
    sample = np.asarray(Sampler(draws=7, temperature=0.5, groups=4)(logits, jax.random.key(0)))
    assert sample.shape == logits.shape
    assert (sample >= 0).all() and (sample <= 1).all()
    assert (sample.sum(axis=1) <= 7.001).all()


def test_a_key_is_a_sample(logits: jax.Array) -> None:
    sampler = Sampler(draws=5, temperature=1.0)
    first, again, other = (sampler(logits, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("temperature", [LEAST_TEMPERATURE, 0.3, 10.0])
def test_nothing_overflows_at_the_extremes(temperature: float) -> None:
    """Logits that differ by thousands, equal ones, and the widest span of noise that 24-bit uniforms can have."""
    logits = jnp.asarray([[3000.0, -3000.0, 0.0, 0.0], [0.0] * 4, [-50.0, 40.0, 40.0, 0.0]], jnp.float32)
    noise = jnp.asarray([[-2.9, 16.6, 0.0, 1.0], [16.6, -2.9, -2.9, -2.9]], jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: union_of_draws(x, noise, temperature).var()))(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_allclose(union_of_draws(logits, noise, temperature).sum(axis=1), 2.0, rtol=1e-3)


def test_gradients_are_those_of_the_softmaxes(logits: jax.Array) -> None:
    noise = np.random.default_rng(4).gumbel(size=(5, logits.shape[1]))
    weights = np.random.default_rng(5).normal(size=logits.shape)
    with jax.enable_x64(True):
        x = jnp.asarray(logits, jnp.float64)

        def plain(x: jax.Array) -> jax.Array:
            return jnp.sum(weights * jax.nn.softmax((x[:, None] + noise[None]) / 0.7, axis=2).sum(axis=1))

        found = jax.jit(jax.grad(lambda x: jnp.sum(weights * union_of_draws(x, jnp.asarray(noise), 0.7))))(x)
        np.testing.assert_allclose(found, jax.jit(jax.grad(plain))(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"draws": 0}, {"groups": 0}, {"temperature": 0.2}, {"temperature": float("inf")}, {"temperature": -1.0}]
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Sampler(**wrong)  # type: ignore[arg-type]
