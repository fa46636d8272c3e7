"""Ranking metrics of top-k recommendation, computed block of users by block of users.

The definitions are those of the official code of Sachdeva et al. 2022. The items that a user has seen are left out. All
metrics but AUC are defined for one user with the truth set T, and averaged over the users that have a truth set:

    HR@k     = |top_k ∩ T| / min(k, |T|)
    Recall@k = |top_k ∩ T| / |T|
    nDCG@k   = Σ_{hits at place r} 1/log₂(r+1)  ÷  the same sum with all of the first min(k, |T|) places hit
    PSP@k    = Σ_{hits} w_i / min(k, |T|)  ÷  the sum of the min(k, |T|) largest w_i in T (so at most 1/min(k, |T|))
    AUC      = P(a positive scores higher than a negative), each drawn from the pool of all users

The propensity weights are w_i = 1 + C (n_i + 1.5)^−0.55 with C = (ln N − 1)·2.5^0.55 (Jain et al. 2016). Item i has n_i
training interactions, and all items together have N. Each user has 50 negatives, sampled from the items that the user
never touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from infrec.kernels.ranking import exclude, top_k
from infrec.kernels.sparse import has_entries, rows_of_entries

CUTOFFS = (10, 20, 100)
"""The k's of the metrics."""
NEGATIVES = 50
"""The number of negatives sampled for each user."""
METRICS = (*(f"{name}@{k}" for k in CUTOFFS for name in ("HR", "Recall", "nDCG", "PSP")), "AUC")
"""The names of the metrics that `combine` gives."""


@dataclass(frozen=True)
class BlockMetrics:
    """The contribution of one block of users.

    Blocks are combined in order, so the sums do not depend on which worker made which block.
    """

    users: int
    """The number of users with a truth set."""
    sums: dict[str, float]
    """Name of a metric → its sum over those users."""
    positives: Float[np.ndarray, " positives"]
    """The scores of the truth items, for the pooled AUC."""
    negatives: Float[np.ndarray, " negatives"]
    """The scores of the sampled negatives, for the pooled AUC."""


def propensity_weights(train_counts: Int[np.ndarray, " items"]) -> Float[np.ndarray, " items"]:
    """Return the weights w_i of PSP, float64, from the number of training interactions of each item."""
    total = max(float(train_counts.sum()), 1.0)
    scale = (math.log(total) - 1.0) * 2.5**0.55
    return np.asarray(1.0 + scale * (train_counts + 1.5) ** -0.55)


def block_metrics(
    scores: Float[np.ndarray, "users columns"],
    *,
    seen: sp.csr_array,
    truth: sp.csr_array,
    negatives: Int[np.ndarray, "users negatives"],
    weights: Float[np.ndarray, " items"],
    cutoffs: tuple[int, ...] = CUTOFFS,
    scored: Int[np.ndarray, " columns"] | None = None,
) -> BlockMetrics:
    """Return the metrics of one block of users. The scores of seen items are overwritten with −∞.

    Args:
        scores: one row for each user, not NaN; −∞ for items that must not be recommended.
        seen: CSR users × items, the context; these items are never recommended.
        truth: CSR users × items, the truth sets; sorted indices, disjoint from `seen`.
        negatives: from `sample_negatives`; −1 where a user has no more of them.
        weights: from `propensity_weights`.
        cutoffs: the k's; a k above the number of items means all items.
        scored: the items that the columns of `scores` are, ascending. The others are never recommended, and their score
            counts as −∞. None means all items.
    """
    items = scores.shape[1]
    user_of = rows_of_entries(truth)
    column = np.arange(items)
    if scored is not None:
        column = np.full(truth.shape[1], -1)
        column[scored] = np.arange(items)
        seen = seen[:, scored]
    positive_scores = _taken(scores, user_of, column[truth.indices])
    sampled = np.nonzero(negatives >= 0)
    negative_scores = _taken(scores, sampled[0], column[negatives[sampled]])

    exclude(scores, seen)
    ranked = top_k(scores, min(max(cutoffs), items))
    ranked = ranked if scored is None else scored[ranked]
    hits = has_entries(truth, ranked)

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
    """Return the metrics of all blocks together. They are percentages, except for AUC, which lies in 0 … 1.

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
    """Return P(positive > negative) + ½ P(equal) over all pairs of scores. It is 0.5 where either array is empty."""
    if not len(positives) or not len(negatives):
        return 0.5
    ordered = np.sort(negatives)
    positives = np.sort(positives)  # a search that ends near the last one is many times faster
    below, up_to = (np.searchsorted(ordered, positives, side=side) for side in ("left", "right"))
    return float(np.mean(below + up_to) / (2 * len(negatives)))


def sample_negatives(
    known: sp.csr_array, *, seed: int, block: int, count: int = NEGATIVES
) -> Int[np.ndarray, "users negatives"]:
    """Sample `count` items for each user, uniformly and with replacement, from those without an entry in `known`.

    `known` is CSR, users × items. A −1 stands where a user knows nearly all items, so that rejection found no negative.
    The random stream depends on (seed, block) alone, so any worker can make a block.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, block]))
    users, items = known.shape
    drawn = generator.integers(items, size=(users, count))
    for _ in range(100):
        rejected = has_entries(known, drawn)
        if not rejected.any():
            return drawn
        drawn[rejected] = generator.integers(items, size=int(rejected.sum()))
    return np.where(has_entries(known, drawn), -1, drawn)


def _taken(
    scores: Float[np.ndarray, "users columns"], users: Int[np.ndarray, " pairs"], columns: Int[np.ndarray, " pairs"]
) -> Float[np.ndarray, " pairs"]:
    """Return the scores of pairs of a user and a column; −∞ for the column −1."""
    taken: np.ndarray = np.where(columns < 0, -np.inf, scores[users, columns]).astype(scores.dtype)
    return taken


def _running_sums(
    weights: Float[np.ndarray, " entries"], user_of: Int[np.ndarray, " entries"]
) -> Float[np.ndarray, " entries+1"]:
    """Return the sums of the first 0, 1, 2, … weights. The weights of each user are in descending order."""
    return np.concatenate([[0.0], np.cumsum(weights[np.lexsort((-weights, user_of))])])
