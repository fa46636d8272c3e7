"""Model selection: the validation users of a dataset judge one candidate after another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float

from infrec.kernels.metrics import BlockMetrics, combine, propensity_weights
from infrec.kernels.tiles import one_blas_thread
from infrec.pipeline.data import Dataset, Histories, UserBlock, numbers, user_blocks
from infrec.pipeline.storage import InputError


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
