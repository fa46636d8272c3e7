"""Naive, obviously right versions of what kernels/ computes fast: dense, in loops, in float64 or better."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def ntk_matrix(rows: np.ndarray, columns: np.ndarray, *, depth: int, w_std: float, b_std: float) -> np.ndarray:
    """The recursion of `kernels.ntk`, letter by letter, in extended precision and with an arccos.

    Inner products are taken in float64, which is exact for binary rows and for multiples of 1/64.
    """
    w2, bias = np.longdouble(w_std) ** 2, np.longdouble(b_std) ** 2
    x, y = rows.astype(np.float64), columns.astype(np.float64)
    # No angle where the rows are the same, none that matters where one of them is 0 and there is no bias
    same = np.array([(y == row).all(axis=1) for row in x])

    def dense(inner: np.ndarray) -> np.ndarray:
        return w2 * inner.astype(np.longdouble) / x.shape[1] + bias

    q, q_xx, q_yy = dense(x @ y.T), dense((x * x).sum(axis=1)), dense((y * y).sum(axis=1))
    theta = q
    pi = np.arccos(np.longdouble(-1))
    for _ in range(depth):
        p = np.sqrt(np.outer(q_xx, q_yy))
        cosine = np.where(same | (p == 0), 1, q / np.where(p == 0, 1, p))
        t = np.arccos(np.clip(cosine, -1, 1))
        behind_relu = p * (np.sin(t) + (pi - t) * np.cos(t)) / (2 * pi)
        theta = theta * (pi - t) / (2 * pi)
        q = w2 * behind_relu + bias
        theta = q + w2 * theta
        q_xx, q_yy = w2 * q_xx / 2 + bias, w2 * q_yy / 2 + bias
    return theta


def ntk_pair(x: np.ndarray, y: np.ndarray, *, depth: int, w_std: float, b_std: float) -> np.longdouble:
    return ntk_matrix(x[None], y[None], depth=depth, w_std=w_std, b_std=b_std)[0, 0]


def ridge_regression(gram: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """α = (K + c·1)⁻¹ X."""
    return np.linalg.solve(gram.astype(np.float64) + ridge * np.eye(len(gram)), targets)


def normalised(train: np.ndarray, rows: np.ndarray, *, p: float, q: float) -> np.ndarray:
    """s · D_u^(−p) rows D_i^(−q), with empty users and items left as they are."""

    def unscaled(matrix: np.ndarray) -> np.ndarray:
        users = np.maximum(matrix.sum(axis=1), 1)[:, None]
        items = np.maximum(train.sum(axis=0), 1)[None, :]
        return matrix / users**p / items**q

    if p == q == 0:
        return rows.astype(float)
    return unscaled(rows) * math.sqrt((train**2).sum() / (unscaled(train) ** 2).sum())


def infinite_ae_scores(
    train: np.ndarray, context: np.ndarray, *, lam: float, p: float = 0.0, q: float = 0.0
) -> np.ndarray:
    """K(x, X) (K + c·1)⁻¹ X with the paper's network, all dense."""
    network = {"depth": 1, "w_std": math.sqrt(2), "b_std": 0.1}
    support, users = normalised(train, train, p=p, q=q), normalised(train, context, p=p, q=q)
    gram = ntk_matrix(support, support, **network).astype(np.float64)
    alpha = ridge_regression(gram, train, lam * np.trace(gram) / len(gram))
    return ntk_matrix(users, support, **network).astype(np.float64) @ alpha


def nystrom_scores(
    train: np.ndarray, context: np.ndarray, landmarks: np.ndarray, *, lam: float, p: float = 0.0, q: float = 0.0
) -> np.ndarray:
    """K(x, Z) (K_XZᵀ K_XZ + c K_ZZ)⁻¹ K_XZᵀ X with the paper's network, all dense; the landmarks are normalised."""
    network = {"depth": 1, "w_std": math.sqrt(2), "b_std": 0.1}
    support, users = normalised(train, train, p=p, q=q), normalised(train, context, p=p, q=q)
    across = ntk_matrix(support, landmarks, **network).astype(np.float64)
    among = ntk_matrix(landmarks, landmarks, **network).astype(np.float64)
    ridge = lam * np.mean([ntk_pair(row, row, **network) for row in support])
    beta = np.linalg.solve(across.T @ across + float(ridge) * among, across.T @ train)
    return ntk_matrix(users, landmarks, **network).astype(np.float64) @ beta


def ease_weights(train: np.ndarray, lam: float) -> np.ndarray:
    """B by its definition: column j regresses item j on all other items."""
    gram = train.T @ train + lam * np.eye(train.shape[1])
    items = np.arange(len(gram))
    weights = np.zeros_like(gram)
    for j in items:
        others = items[items != j]
        weights[others, j] = np.linalg.solve(gram[np.ix_(others, others)], gram[others, j])
    return weights


def mf_scores(items: np.ndarray, context: np.ndarray, *, lam: float, alpha: float) -> np.ndarray:
    """z·y_i with z the minimum of Σ_i c_i (p_i − z·y_i)² + λ|z|²; p is the context, c is α where p = 1, else 1."""
    factors = items.astype(np.float64)
    scores = np.zeros(context.shape)
    for user, preference in enumerate(context):
        confidence = np.diag(np.where(preference > 0, alpha, 1.0))
        system = factors.T @ confidence @ factors + lam * np.eye(factors.shape[1])
        scores[user] = factors @ np.linalg.solve(system, factors.T @ confidence @ preference)
    return scores


def ranking(scores: Sequence[float], k: int) -> list[int]:
    """The k best items, of equal scores the lower index first."""
    return sorted(range(len(scores)), key=lambda item: (-scores[item], item))[:k]


def average_metrics(scores: np.ndarray, seen: np.ndarray, truth: np.ndarray, weights: np.ndarray, k: int) -> dict:
    """The averages of `user_metrics` over the users with a truth set."""
    rows = [
        user_metrics(scores[user], set(np.flatnonzero(seen[user])), set(np.flatnonzero(truth[user])), weights, k)
        for user in range(len(scores))
        if truth[user].any()
    ]
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


def user_metrics(scores: np.ndarray, seen: set[int], truth: set[int], weights: np.ndarray, k: int) -> dict[str, float]:
    """The metrics of one user with a truth set, in percent."""
    candidates = [item for item in ranking(list(scores), len(scores)) if item not in seen]
    hits = [item in truth for item in candidates[:k]]
    reachable = min(k, len(truth))
    dcg = sum(1 / math.log2(place + 2) for place, hit in enumerate(hits) if hit)
    ideal = sum(1 / math.log2(place + 2) for place in range(reachable))
    found = sum(weights[item] for item, hit in zip(candidates, hits, strict=False) if hit) / reachable
    best = sum(sorted((weights[item] for item in truth), reverse=True)[:reachable])
    return {
        f"HR@{k}": 100 * sum(hits) / reachable,
        f"Recall@{k}": 100 * sum(hits) / len(truth),
        f"nDCG@{k}": 100 * dcg / ideal,
        f"PSP@{k}": 100 * found / best,
    }


def area_under_curve(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Return the fraction of pairs that have the positive before the negative; a tie is half a pair."""
    difference = np.subtract.outer(np.asarray(positives), np.asarray(negatives))
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def multi_gumbel(logits: np.ndarray, *, draws: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """S = min(1, Σ_k softmax((L + G_k)/τ)), draw after draw, each with noise of its own for every entry."""
    total = np.zeros_like(logits, dtype=np.float64)
    for _ in range(draws):
        z = (logits + rng.gumbel(size=logits.shape)) / temperature
        e = np.exp(z - z.max(axis=1, keepdims=True))
        total += e / e.sum(axis=1, keepdims=True)
    return np.minimum(total, 1.0)


def multinomial_loss(scores: np.ndarray, targets: np.ndarray, left_out: np.ndarray, weights: np.ndarray) -> float:
    """Σ_u w_u Σ_{i∈T_u} −log softmax(P_u)_i, the softmax over the items that are not left out."""
    loss = 0.0
    for p, target, out, weight in zip(scores.astype(np.float64), targets > 0, left_out > 0, weights, strict=True):
        if target.any():
            loss += weight * float(np.sum(np.log(np.sum(np.exp(p[~out] - p.max()))) - (p[target] - p.max())))
    return loss
