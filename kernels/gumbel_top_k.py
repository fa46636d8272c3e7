"""The choice of a synthetic user's items as interactions, for learners that take no weights.

A summary gives each synthetic user a weight for every item. Some of these items become interactions, all of value 1.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from infrec.kernels.ranking import top_k


class Choice(StrEnum):
    """The rule that chooses which items of a synthetic user become its interactions."""

    TOP = "top"
    """Choose the items of the greatest weight. Among equal weights, choose the first items in the catalogue."""
    SAMPLE = "sample"
    """Draw items one after another without replacement, with probabilities in proportion to the weights."""


def interactions(
    weights: Float[np.ndarray, "budget items"], *, per_user: int, choice: Choice = Choice.TOP, seed: int = 0
) -> sp.csr_array:
    """Return the chosen interactions: a binary CSR matrix, budget × items, float32.

    Every row has `per_user` items. Where fewer items of a row have a weight, it has all of these.

    Sampling is the Gumbel top-k: the k greatest of log w + G, with standard Gumbel noise G, are k draws without
    replacement in proportion to w (Kool et al., ICML 2019, arXiv 1903.06059).

    Raises ValueError for a `per_user` outside 1 … items.

    Args:
        weights: the summary, one row per synthetic user, entries ≥ 0.
        per_user: k, the number of items per synthetic user.
        choice: the rule that chooses the items.
        seed: determines the noise of `Choice.SAMPLE`.
    """
    keys = weights
    if choice == Choice.SAMPLE:
        with np.errstate(divide="ignore"):  # log 0 = −∞: an item of weight 0 is never drawn
            keys = np.log(weights, dtype=np.float64)
        keys += np.random.default_rng(seed).gumbel(size=weights.shape)
    items = np.sort(top_k(keys, per_user), axis=1)
    users, places = np.nonzero(np.take_along_axis(weights, items, axis=1))
    ones = np.ones(len(users), np.float32)
    return sp.csr_array((ones, (users, items[users, places])), shape=weights.shape)
