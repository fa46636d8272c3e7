"""A summary's weights as interactions, for learners that take none: some items of each synthetic user, all alike."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from infrec.kernels.ranking import top_k


class Choice(StrEnum):
    """Which items of a synthetic user become its interactions."""

    TOP = "top"
    """Those of the greatest weight; of equal ones the first in the catalogue."""
    SAMPLE = "sample"
    """Drawn one after another without replacement, in proportion to the weights."""


def interactions(
    weights: Float[np.ndarray, "budget items"], *, per_user: int, choice: Choice = Choice.TOP, seed: int = 0
) -> sp.csr_array:
    """Binary CSR: `per_user` items of every row, or all that have a weight where there are fewer.

    Sampling is the Gumbel top-k: the k greatest of log w + G, G standard Gumbel, are k draws without replacement in
    proportion to w (Kool et al., ICML 2019, arXiv 1903.06059). Raises ValueError for a `per_user` outside 1 … items.
    """
    keys = weights
    if choice == Choice.SAMPLE:
        with np.errstate(divide="ignore"):  # log 0 = −∞ is never drawn
            keys = np.log(weights, dtype=np.float64)
        keys += np.random.default_rng(seed).gumbel(size=weights.shape)
    items = np.sort(top_k(keys, per_user), axis=1)
    users, places = np.nonzero(np.take_along_axis(weights, items, axis=1))
    ones = np.ones(len(users), np.float32)
    return sp.csr_array((ones, (users, items[users, places])), shape=weights.shape)
