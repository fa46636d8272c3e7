"""Top-k lists from blocks of scores. Seen items are left out, and the lower item index breaks ties."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

_GROUP = 16
"""The number of items in a group. In the search for a bound, the best item of a group stands for all of its items:
their maximum costs less than their partition."""

_SURPLUS = 64
"""A user with more than 2k items plus this many at or above the bound is handled alone: only ties cause so many."""


def exclude(scores: Float[np.ndarray, "users items"], seen: sp.csr_array) -> None:
    """Set the scores to −∞ where `seen` (CSR, users × items) has an entry, in place."""
    users = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
    scores[users, seen.indices] = -np.inf


def top_k(scores: Float[np.ndarray, "users items"], k: int) -> Int[np.ndarray, "users k"]:
    """Return the k best items of every user, best first. Among equal scores the lower item index comes first.

    Only items that reach a lower bound of the user's k-th best score are sorted. NaN scores must not occur: they cannot
    be ranked. Raises ValueError for a k outside 1 … items.
    """
    users, items = scores.shape
    if not 1 <= k <= items:
        raise ValueError(f"k must lie in 1 … {items}, it is {k}")
    chosen = scores >= _bound(scores, k)[:, None]
    first_of_user = items * np.arange(users + 1)
    places = np.flatnonzero(chosen)
    counts = np.diff(np.searchsorted(places, first_of_user))
    tied = np.flatnonzero(counts > 2 * k + _SURPLUS)
    if len(tied):
        for user in tied:
            chosen[user] = _exactly_k(scores[user], k)
        places, counts[tied] = np.flatnonzero(chosen), k
    filled = np.arange(max(counts, default=k)) < counts[:, None]
    descending = np.full(filled.shape, np.inf, scores.dtype)
    descending[filled] = -scores.ravel()[places]
    candidates = np.zeros(filled.shape, np.intp)
    candidates[filled] = places - np.repeat(first_of_user[:-1], counts)
    best_first = np.argsort(descending, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(candidates, best_first, axis=1)


def _bound(scores: Float[np.ndarray, "users items"], k: int) -> Float[np.ndarray, " users"]:
    """Return a lower bound of the k-th best score of every user: the k-th best of the maxima of groups of items.

    It is hardly less than the k-th best score.
    """
    items = scores.shape[1]
    size = min(_GROUP, max(1, items // (4 * k)))  # enough groups that few of them hold two of the best
    groups = items // size
    maxima = scores[:, :groups].copy()
    for start in range(groups, size * groups, groups):
        np.maximum(maxima, scores[:, start : start + groups], out=maxima)
    maxima.partition(groups - k, axis=1)
    bound: np.ndarray = maxima[:, groups - k]
    return bound


def _exactly_k(scores: Float[np.ndarray, " items"], k: int) -> Bool[np.ndarray, " items"]:
    """Return a mask of the k best of one user's items. Among items that equal the k-th best, it has the first ones."""
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    chosen: np.ndarray = scores > threshold
    ties = np.flatnonzero(scores == threshold)
    chosen[ties[: k - np.count_nonzero(chosen)]] = True
    return chosen
