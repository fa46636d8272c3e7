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
    """The validation users of a dataset. They judge one candidate after another."""

    def __init__(self, dataset: Dataset, *, seed: int, histories: Histories | None = None) -> None:
        """Take the users of `histories`, which may be a sample of the dataset's; by default take all users.

        Raises `InputError` if none of them has a validation interaction.
        """
        self.histories = dataset.histories() if histories is None else histories
        self.blocks = user_blocks(self.histories, "validation", seed=seed)
        if not self.blocks:
            raise InputError(f"{dataset.artefact.location} has no validation interactions to choose λ on.")
        self._weights = propensity_weights(numbers(dataset.items()["train_count"]))

    def judge(self, scores: Callable[[UserBlock], Float[np.ndarray, "users items"]]) -> dict[str, float]:
        """Return the metrics of a candidate. `scores` scores a block of users. All cores judge blocks at once."""
        with one_blas_thread as threads, ThreadPoolExecutor(threads) as pool:
            return combine(pool.map(lambda number: self.metrics(number, scores), range(len(self.blocks))))

    def metrics(self, number: int, scores: Callable[[UserBlock], Float[np.ndarray, "users items"]]) -> BlockMetrics:
        """Return the metrics of one block: its share in those of the candidate."""
        block = self.blocks[number]
        return block.metrics(scores(block), self._weights)
