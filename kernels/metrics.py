"""Ranking metrics of top-k recommendation, block of users by block of users.

Definitions (those of the official code of Sachdeva et al. 2022), per user with truth set T, seen items left out, and
averaged over the users that have a truth set:

    HR@k     = |top_k ∩ T| / min(k, |T|)
    Recall@k = |top_k ∩ T| / |T|
    nDCG@k   = Σ_{hits at place r} 1/log₂(r+1)  ÷  the same sum with all of the first min(k, |T|) places hit
    PSP@k    = Σ_{hits} w_i / min(k, |T|)  ÷  the sum of the min(k, |T|) largest w_i in T (so at most 1/min(k, |T|))
    AUC      = of one positive and one negative drawn from the pool of all users, the positive scores higher

with propensity weights w_i = 1 + C (n_i + 1.5)^−0.55, C = (ln N − 1)·2.5^0.55 (Jain et al. 2016; n_i train count of
item i, N train interactions) and 50 negatives a user, sampled from the items that the user never touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from infrec.kernels.ranking import exclude, top_k

CUTOFFS = (10, 20, 100)
NEGATIVES = 50
METRICS = (*(f"{name}@{k}" for k in CUTOFFS for name in ("HR", "Recall", "nDCG", "PSP")), "AUC")
"""The names of the metrics that `combine` gives."""


@dataclass(frozen=True)
class BlockMetrics:
    """What one block of users contributes; blocks are combined in order, so sums do not depend on who made them."""

    users: int
    """Users with a truth set."""
    sums: dict[str, float]
    """Metric name → sum over those users."""
    positives: Float[np.ndarray, " positives"]
    negatives: Float[np.ndarray, " negatives"]
    """The scores of truth items and of sampled negatives, for the pooled AUC."""


def propensity_weights(train_counts: Int[np.ndarray, " items"]) -> Float[np.ndarray, " items"]:
    """w_i of PSP from the items' train counts, float64."""
    total = max(float(train_counts.sum()), 1.0)
    scale = (math.log(total) - 1.0) * 2.5**0.55
    return np.asarray(1.0 + scale * (train_counts + 1.5) ** -0.55)


def block_metrics(
    scores: Float[np.ndarray, "users items"],
    *,
    seen: sp.csr_array,
    truth: sp.csr_array,
    negatives: Int[np.ndarray, "users negatives"],
    weights: Float[np.ndarray, " items"],
    cutoffs: tuple[int, ...] = CUTOFFS,
) -> BlockMetrics:
    """The metrics of one block of users. Overwrites the scores of seen items.

    Args:
        scores: one row a user, not NaN; −∞ for items that are not to be recommended.
        seen: CSR users × items, the context: never recommended.
        truth: CSR users × items, sorted indices, disjoint from `seen`.
        negatives: from `sample_negatives`; −1 where a user has no more of them.
        weights: from `propensity_weights`.
        cutoffs: the k's; one above the number of items is answered with all items.
    """
    users, items = scores.shape
    user_of = np.repeat(np.arange(users), np.diff(truth.indptr))
    positive_scores = scores[user_of, truth.indices]
    negative_scores = np.take_along_axis(scores, np.maximum(negatives, 0), axis=1)[negatives >= 0]

    exclude(scores, seen)
    ranked = top_k(scores, min(max(cutoffs), items))
    relevant = np.zeros((users, items), dtype=bool)
    relevant[user_of, truth.indices] = True
    hits = np.take_along_axis(relevant, ranked, axis=1)

    sizes = np.diff(truth.indptr)
    known = sizes > 0
    discounts = 1.0 / np.log2(np.arange(2, max(cutoffs) + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    heaviest = _running_sums(weights[truth.indices], user_of)
    sums: dict[str, float] = {}
    for k in cutoffs:
        reachable = np.minimum(k, sizes)
        best_weight = heaviest[truth.indptr[:-1] + reachable] - heaviest[truth.indptr[:-1]]
        found = hits[:, :k].sum(axis=1)
        gain = hits[:, :k] @ discounts[: min(k, items)]
        weight = np.where(hits[:, :k], weights[ranked[:, :k]], 0.0).sum(axis=1)
        for name, value, best in (
            ("HR", found, reachable),
            ("Recall", found, sizes),
            ("nDCG", gain, ideal[reachable]),
            ("PSP", weight, reachable * best_weight),
        ):
            sums[f"{name}@{k}"] = float(np.sum(value[known] / best[known]))
    return BlockMetrics(int(known.sum()), sums, positive_scores, negative_scores)


def combine(blocks: Iterable[BlockMetrics]) -> dict[str, float]:
    """The metrics of all blocks together: percentages, except for AUC, which lies in 0 … 1.

    Raises ValueError where no user has a truth set.
    """
    blocks = list(blocks)
    users = sum(block.users for block in blocks)
    if users == 0:
        raise ValueError("no user has anything to predict")
    names = blocks[0].sums
    averages = {name: 100.0 * sum(block.sums[name] for block in blocks) / users for name in names}
    positives = np.concatenate([block.positives for block in blocks])
    negatives = np.concatenate([block.negatives for block in blocks])
    return {**averages, "AUC": area_under_curve(positives, negatives)}


def area_under_curve(positives: np.ndarray, negatives: np.ndarray) -> float:
    """P(positive > negative) + ½ P(equal), over all pairs; 0.5 where either is empty."""
    if not len(positives) or not len(negatives):
        return 0.5
    ordered = np.sort(negatives)
    positives = np.sort(positives)  # a search is many times faster beside the last one
    below, up_to = (np.searchsorted(ordered, positives, side=side) for side in ("left", "right"))
    return float(np.mean(below + up_to) / (2 * len(negatives)))


def sample_negatives(
    known: sp.csr_array, *, seed: int, block: int, count: int = NEGATIVES
) -> Int[np.ndarray, "users negatives"]:
    """`count` items a user (with replacement) from those without an entry in `known`, uniformly.

    −1 stands where a user knows so nearly all items that rejection found no negative. The random stream is that of
    (seed, block), so blocks can be made anywhere.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, block]))
    users, items = known.shape
    touched = np.zeros((users, items), dtype=bool)
    touched[np.repeat(np.arange(users), np.diff(known.indptr)), known.indices] = True
    drawn = generator.integers(items, size=(users, count))
    for _ in range(100):
        rejected = np.take_along_axis(touched, drawn, axis=1)
        if not rejected.any():
            return drawn
        drawn[rejected] = generator.integers(items, size=int(rejected.sum()))
    return np.where(np.take_along_axis(touched, drawn, axis=1), -1, drawn)


def _running_sums(
    weights: Float[np.ndarray, " entries"], user_of: Int[np.ndarray, " entries"]
) -> Float[np.ndarray, " entries+1"]:
    """Sums of the first 0, 1, 2, … weights, those of each user in descending order."""
    return np.concatenate([[0.0], np.cumsum(weights[np.lexsort((-weights, user_of))])])
