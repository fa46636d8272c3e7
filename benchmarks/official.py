"""The official ∞-AE procedure, re-implemented to be compared with: dense rows, everything made anew on every pass.

As the code published with Sachdeva et al. 2022 does it: for every λ, and again for the test, the dense Gram matrices
K(X, X) and K(context, X) are built with JAX, the system is factored and solved for all items, the scores are one dense
product, all of them are sorted, and the metrics are computed user by user in Python.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
import scipy.sparse as sp
from jax import Array

from infrec.kernels.metrics import area_under_curve, propensity_weights, sample_negatives

LAMBDAS = (0.0, 1.0, 5.0, 20.0, 50.0, 100.0)
CUTOFFS = (10, 100)


def dense_kernel(x: Array, y: Array, closest: float = 1.0) -> Array:
    """The depth-1 ReLU NTK of dense rows, by the arc-cosine recursion.

    `closest` is the largest cosine: below 1 where gradients are taken, as that of the arccos is infinite there.
    """
    items = x.shape[1]
    cov = 2 * jnp.matmul(x, y.T) / items + 0.01
    variance_x = 2 * jnp.sum(x * x, axis=1) / items + 0.01
    variance_y = 2 * jnp.sum(y * y, axis=1) / items + 0.01
    scale = jnp.sqrt(variance_x[:, None] * variance_y[None, :])
    angle = jnp.arccos(jnp.clip(cov / scale, -closest, closest))
    relu = scale * (jnp.sin(angle) + (jnp.pi - angle) * jnp.cos(angle)) / (2 * jnp.pi)
    return 2 * relu + 0.01 + 2 * cov * (jnp.pi - angle) / (2 * jnp.pi)


@partial(jax.jit, static_argnames="lam")
def predict(train: Array, context: Array, lam: float) -> Array:
    """Scores of all items for every row of `context`."""
    kernel = dense_kernel(train, train)
    ridge = lam * jnp.trace(kernel) / len(train)
    dual = jax.scipy.linalg.solve(kernel + ridge * jnp.eye(len(train)), train, assume_a="pos")
    return dense_kernel(context, train) @ dual


def metrics(
    scores: np.ndarray, context: sp.csr_array, truth: sp.csr_array, negatives: np.ndarray, weights: np.ndarray
) -> dict[str, float]:
    """HR, nDCG and PSP at 10 and 100 in percent, and AUC, by a loop over users."""
    items_of = [truth.indices[truth.indptr[user] : truth.indptr[user + 1]].tolist() for user in range(len(scores))]
    positive_scores, negative_scores = [], []
    for user, items in enumerate(items_of):
        positive_scores += scores[user, items].tolist()
        negative_scores += scores[user, negatives[user]].tolist()
        scores[user, context.indices[context.indptr[user] : context.indptr[user + 1]]] = -np.inf
    ranked = (-scores).argsort(axis=1)[:, : max(CUTOFFS)].tolist()
    sums = {f"{name}@{k}": 0.0 for name in ("HR", "nDCG", "PSP") for k in CUTOFFS}
    for k in CUTOFFS:
        for items, best in zip(items_of, ranked, strict=True):
            relevant, reachable = set(items), min(k, len(items))
            heaviest = sorted((weights[item] for item in items), reverse=True)
            gain = ideal_gain = weight = ideal_weight = 0.0
            for place, item in enumerate(best[:k]):
                if item in relevant:
                    gain += 1 / np.log2(place + 2)
                    weight += weights[item] / reachable
                if place < reachable:
                    ideal_gain += 1 / np.log2(place + 2)
                    ideal_weight += heaviest[place]
            sums[f"HR@{k}"] += len(relevant.intersection(best[:k])) / reachable
            sums[f"nDCG@{k}"] += gain / ideal_gain
            sums[f"PSP@{k}"] += weight / ideal_weight
    averages = {name: 100 * total / len(scores) for name, total in sums.items()}
    return {**averages, "AUC": area_under_curve(np.array(positive_scores), np.array(negative_scores))}


def fit_and_evaluate(train: sp.csr_array, validation: sp.csr_array, test: sp.csr_array) -> dict[str, Any]:
    """λ chosen on validation HR@100, as the official code does it, the test metrics at it, and the seconds.

    Every user must have validation and test items, as in ML-1M.
    """
    negatives = sample_negatives(sp.csr_array(train + validation + test), seed=0, block=0)
    weights = propensity_weights(np.bincount(train.indices, minlength=train.shape[1]))
    metric_seconds = 0.0

    def evaluate(context: sp.csr_array, truth: sp.csr_array, lam: float) -> dict[str, float]:
        nonlocal metric_seconds
        scores = np.array(predict(jnp.asarray(train.toarray()), jnp.asarray(context.toarray()), lam))
        started = time.perf_counter()
        result = metrics(scores, context, truth, negatives, weights)
        metric_seconds += time.perf_counter() - started
        return result

    started = time.perf_counter()
    chosen = max(LAMBDAS, key=lambda lam: evaluate(train, validation, lam)["HR@100"])
    tested = evaluate(sp.csr_array(train + validation), test, chosen)
    seconds = time.perf_counter() - started
    return {
        "lambda": chosen,
        "test": tested,
        "seconds": round(seconds, 2),
        "of_which_metrics": round(metric_seconds, 2),
    }
