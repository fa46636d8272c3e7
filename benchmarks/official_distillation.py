"""One step of the official Distill-CF, re-implemented to be compared with: dense rows, T scans forward and T backward.

As the code published with Sachdeva et al. 2022 does it: each of the T draws of the multi-Gumbel sampler takes noise of
the size of the whole summary and a softmax of its own, one after another, and again on the way back; kernel, solve,
scores and loss are dense and differentiated automatically; Adam updates the logits.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from benchmarks.official import dense_kernel

TEMPERATURE, CARDINALITY, LEARNING_RATE, LAM = 10.0, 0.001, 0.04, 1e-3
_CLOSEST = 1.0 - 1e-6


def sample(logits: Array, key: Array, draws: int) -> Array:
    """min(1, Σ softmax((L + G)/τ)) by a scan that keeps nothing of a draw: the way back makes it again."""

    @jax.checkpoint
    def one_more(total: Array, key: Array) -> tuple[Array, None]:
        noise = jax.random.gumbel(key, logits.shape)
        return total + jax.nn.softmax((logits + noise) / TEMPERATURE, axis=1), None

    total, _ = jax.lax.scan(one_more, jnp.zeros_like(logits), jax.random.split(key, draws))
    return jnp.minimum(total, 1.0)


def loss(logits: Array, train: Array, key: Array, draws: int) -> Array:
    """The mean over users of the multinomial loss, and the size of the summary."""
    summary = sample(logits, key, draws)
    kernel = dense_kernel(summary, summary, _CLOSEST)
    ridge = LAM * jnp.trace(kernel) / len(summary) * jnp.eye(len(summary))
    dual = jax.scipy.linalg.solve(kernel + ridge, summary, assume_a="pos")
    log_probabilities = jax.nn.log_softmax(dense_kernel(train, summary, _CLOSEST) @ dual, axis=1)
    size = summary.sum(axis=1).mean() / train.sum(axis=1).mean()
    return -(train * log_probabilities).sum(axis=1).mean() + CARDINALITY * size


@partial(jax.jit, static_argnames="draws")
def step(logits: Array, state: Any, train: Array, key: Array, draws: int) -> tuple[Array, Any, Array]:
    value, gradient = jax.value_and_grad(loss)(logits, train, key, draws)
    updates, state = optax.adam(LEARNING_RATE).update(gradient, state)
    return optax.apply_updates(logits, updates), state, value


def seconds_of_steps(train: np.ndarray, *, budget: int, draws: int, steps: int) -> list[float]:
    """How long each of some steps takes, after one that compiles."""
    users = np.random.default_rng(0).choice(len(train), budget, replace=False)
    logits, dense, key = jnp.asarray(train[users]), jnp.asarray(train), jax.random.key(0)
    state = optax.adam(LEARNING_RATE).init(logits)
    seconds = []
    for number in range(steps + 1):
        started = time.perf_counter()
        logits, state, value = step(logits, state, dense, jax.random.fold_in(key, number), draws)
        value.block_until_ready()
        logits.block_until_ready()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]
