"""Top-k lists from blocks of scores, with seen items left out and ties broken by the lower item index."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int


def exclude(scores: Float[np.ndarray, "users items"], seen: sp.csr_array) -> None:
    """scores ← −∞ where `seen` has an entry, in place."""
    users = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
    scores[users, seen.indices] = -np.inf


def top_k(scores: Float[np.ndarray, "users items"], k: int) -> Int[np.ndarray, "users k"]:
    """The k best items of every user, best first; of equal scores the lower item index comes first.

    Raises ValueError for a k outside 1 … items. NaN scores are not ranked: they must not occur.
    """
    users, items = scores.shape
    if not 1 <= k <= items:
        raise ValueError(f"k must lie in 1 … {items}, it is {k}")
    # A partition finds each user's k-th best score many times faster than an argpartition finds the items themselves
    threshold = np.partition(scores, items - k, axis=1)[:, items - k, None]
    chosen = scores >= threshold
    surplus = chosen.sum(axis=1) - k
    for user in np.flatnonzero(surplus):  # equal scores straddle the k-th place: the last of them have to go
        tied = np.flatnonzero(scores[user] == threshold[user])
        chosen[user, tied[len(tied) - surplus[user] :]] = False
    candidates = np.flatnonzero(chosen).reshape(users, k) - items * np.arange(users)[:, None]
    best_first = np.argsort(-np.take_along_axis(scores, candidates, axis=1), axis=1, kind="stable")
    return np.take_along_axis(candidates, best_first, axis=1)
