"""The users of a dataset in blocks. The users of a block are scored and judged at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from infrec.kernels.metrics import BlockMetrics, block_metrics, sample_negatives
from infrec.pipeline.data.dataset import Histories

USER_BLOCK = 512
"""The greatest number of users in a block: it is enough for a GEMM at full rate."""
_LEAST_BLOCK = 32
"""The least number of users in a block."""
_BLOCK_ENTRIES = 1 << 26
"""The scores of a block: 256 MB. Where the catalogue is large, a block has fewer users."""
_JUDGED_ENTRIES = 1 << 30
"""The scores by which a candidate is judged: 10,000 users of 100,000 items. They take a core some 10 seconds."""


@dataclass(frozen=True)
class UserBlock:
    """Up to `block_users` users that have something to predict."""

    key: tuple[int, int]
    """A seed and the block's position in the dataset: the key of the sampled negatives."""
    rows: Int[np.ndarray, " users"]
    """The users' rows in the histories."""
    context: sp.csr_array
    truth: sp.csr_array
    known: sp.csr_array
    """All items that the users ever touched. No negative is taken from them."""

    @cached_property
    def negatives(self) -> Int[np.ndarray, "users negatives"]:
        """The sampled negatives of the users, the same for every model that the block judges."""
        seed, position = self.key
        return sample_negatives(self.known, seed=seed, block=position)

    def metrics(
        self,
        scores: Float[np.ndarray, "users scored"],
        weights: Float[np.ndarray, " items"],
        *,
        scored: Int[np.ndarray, " scored"] | None = None,
    ) -> BlockMetrics:
        """Return the block's share of the metrics. This overwrites the scores of seen items.

        `scored` are the items that have scores, ascending; the others come last. None means all items.
        """
        return block_metrics(
            scores, seen=self.context, truth=self.truth, negatives=self.negatives, weights=weights, scored=scored
        )


def user_blocks(histories: Histories, part: str, *, seed: int, first: int = 0) -> list[UserBlock]:
    """Return blocks of the users that have something to predict in `part` ("validation" or "test").

    The users keep their order. The blocks are numbered from `first`. `seed` is that of the sampled negatives.
    """
    context, truth = histories.context(part), histories.truth(part)
    known = sp.csr_array(histories.train + histories.validation + histories.test)
    users = np.flatnonzero(np.diff(truth.indptr))
    size = block_users(context.shape[1])
    chunks = [users[start : start + size] for start in range(0, len(users), size)]
    return [
        UserBlock((seed, first + number), rows, context[rows], truth[rows], known[rows])
        for number, rows in enumerate(chunks)
    ]


def block_users(items: int) -> int:
    """Return the number of users in a block: few enough that a block × items matrix is small."""
    return min(USER_BLOCK, max(_LEAST_BLOCK, _BLOCK_ENTRIES // max(items, 1)))


def judging_users(most: int, items: int) -> int:
    """Return how many users judge a candidate: `most`, or fewer where the catalogue is large."""
    return min(most, max(USER_BLOCK, _JUDGED_ENTRIES // max(items, 1)))


def judging_threads(judged: int, items: int) -> int:
    """Return how many blocks of `judged` users are scored at the same time: one on each core of this process."""
    return min(len(os.sched_getaffinity(0)), -(-judged // block_users(items)))


def score_block(rows: int, items: int) -> int:
    """Return the bytes that one block takes while it is scored by dual coefficients of shape `rows` × `items`.

    A block has its dual weights, its scores in both memory orders, a partition of them, and two masks.
    """
    return block_users(items) * (4 * rows + (4 * 3 + 2) * items)
