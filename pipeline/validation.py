"""Model selection: the validation part of a dataset, cut into blocks of users that can be scored by any means."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from kernels.metrics import BlockMetrics, block_metrics, combine, propensity_weights, sample_negatives
from kernels.tiles import one_blas_thread
from pipeline.dataset import Dataset, Histories, numbers
from pipeline.errors import InputError

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


class Validation:
    """The validation users of a dataset, ready to judge one candidate after another."""

    def __init__(self, dataset: Dataset, *, seed: int, histories: Histories | None = None) -> None:
        """Of a sample of the users, where their `histories` are given; else of all."""
        self.histories = dataset.histories() if histories is None else histories
        self.blocks = user_blocks(self.histories, "validation")
        if not self.blocks:
            raise InputError(f"{dataset.artefact.location} has no validation interactions to choose λ on.")
        self._weights = propensity_weights(numbers(dataset.items()["train_count"]))
        self._seed = seed

    def judge(self, scores: Callable[[UserBlock], Float[np.ndarray, "users items"]]) -> dict[str, float]:
        """The metrics of a candidate that scores a block of users so. Blocks are judged on all cores at once."""
        with one_blas_thread as threads, ThreadPoolExecutor(threads) as pool:
            return combine(pool.map(lambda number: self.metrics(number, scores), range(len(self.blocks))))

    def metrics(self, number: int, scores: Callable[[UserBlock], Float[np.ndarray, "users items"]]) -> BlockMetrics:
        """The share of one of the blocks."""
        block = self.blocks[number]
        return block.metrics(scores(block), self._weights, self._seed)
