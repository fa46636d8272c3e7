"""Users of a dataset in blocks: so many are scored and judged at once."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from infrec.kernels.metrics import BlockMetrics, block_metrics, sample_negatives
from infrec.pipeline.data.dataset import Histories

USER_BLOCK = 512
"""Users that are scored at once: enough for a GEMM at full rate, few enough that a block × items is small."""


@dataclass(frozen=True)
class UserBlock:
    """Up to `USER_BLOCK` users that have something to predict."""

    number: int
    """Position in the dataset: keys the sampled negatives."""
    rows: Int[np.ndarray, " users"]
    """Which rows of the histories these users are."""
    context: sp.csr_array
    truth: sp.csr_array
    known: sp.csr_array
    """Everything that the users ever touched: no negative is taken from it."""

    def metrics(
        self, scores: Float[np.ndarray, "users items"], weights: Float[np.ndarray, " items"], seed: int
    ) -> BlockMetrics:
        """The block's share of the metrics; overwrites the scores of seen items."""
        negatives = sample_negatives(self.known, seed=seed, block=self.number)
        return block_metrics(scores, seen=self.context, truth=self.truth, negatives=negatives, weights=weights)


def user_blocks(histories: Histories, part: str, *, first: int = 0) -> list[UserBlock]:
    """The users with a truth set in `part` ("validation" or "test"), in order, in blocks numbered from `first`."""
    context, truth = histories.context(part), histories.truth(part)
    known = sp.csr_array(histories.train + histories.validation + histories.test)
    users = np.flatnonzero(np.diff(truth.indptr))
    chunks = [users[start : start + USER_BLOCK] for start in range(0, len(users), USER_BLOCK)]
    return [
        UserBlock(first + number, rows, context[rows], truth[rows], known[rows]) for number, rows in enumerate(chunks)
    ]


def score_blocks(users: int, items: int) -> int:
    """A block's dual weights, its scores in both memory orders, a partition of them and two masks, for each thread."""
    return (os.cpu_count() or 1) * USER_BLOCK * (4 * users + (4 * 3 + 2) * items)
