"""The real users that a summary is learned from and judged by: divided into parts, which actors hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ray
import scipy.sparse as sp
from jaxtyping import Float

from kernels.distillation import Batch, BlockGradients, block_gradients
from kernels.kernel_matrix import KernelRows, kernel_block
from kernels.metrics import BlockMetrics, combine, propensity_weights
from kernels.ntk import NTK
from kernels.sparse import chosen_entries
from pipeline.dataset import Dataset, Histories
from pipeline.distillation.config import DistillConfig, Objective
from pipeline.errors import InputError
from pipeline.validation import UserBlock, user_blocks
from pipeline.workers import Workers


class PartWorker:
    """Holds some of the parts of a dataset's users: reads each when it is first asked for, and keeps it.

    Everything that it returns is a pure function of (dataset, part, arguments), so a worker that died is replaced and
    loses nothing but the call in hand.
    """

    def __init__(self, dataset: Dataset, parts: int) -> None:
        self._dataset, self._parts = dataset, parts
        self._held: dict[int, _Part] = {}
        self._weights = propensity_weights(dataset.items()["train_count"].to_numpy())

    def gradients(
        self,
        part: int,
        batch: int,
        summary: Float[np.ndarray, "budget items"],
        dual: Float[np.ndarray, "budget items"],
        config: DistillConfig,
    ) -> tuple[BlockGradients, int]:
        """The part's share of the loss of the `batch`-th batch, with its gradients, and how many users it has."""
        train = self._part(part).train
        rng = np.random.default_rng([config.seed, batch, part])
        share = -(-config.batch // config.parts)
        if share < train.shape[0]:
            train = train[np.sort(rng.choice(train.shape[0], share, replace=False))]
        if config.objective == Objective.HELD_OUT:
            context, targets = _dropped(train, config.drop, rng)
            left_out = context
        else:
            context = targets = train
            left_out = sp.csr_array(train.shape, dtype=train.dtype)
        sizes = np.maximum(np.diff(targets.indptr), 1)
        # Relative to the mean number of targets, so that ω does not change the scale of the loss
        expected = self._dataset.mean_train_interactions * (config.drop if left_out is context else 1.0)
        weights = ((expected / sizes) ** config.user_weight).astype(np.float32)
        users = Batch(context, targets, left_out, weights)
        return block_gradients(config.ntk, summary, dual, users), train.shape[0]

    def judge(
        self,
        part: int,
        ntk: NTK,
        summary: Float[np.ndarray, "budget items"],
        duals: Sequence[Float[np.ndarray, "budget items"]],
        seed: int,
    ) -> list[list[BlockMetrics]]:
        """The part's share of the validation metrics of every α, block by block."""
        support = KernelRows.of(sp.csr_array(summary))
        judged: list[list[BlockMetrics]] = [[] for _ in duals]
        for block in self._part(part).blocks:
            kernel = kernel_block(ntk, KernelRows.of(block.context), support)
            for dual, metrics in zip(duals, judged, strict=True):
                metrics.append(block.metrics(kernel @ dual, self._weights, seed))
        return judged

    def _part(self, index: int) -> _Part:
        if index not in self._held:
            self._held[index] = _Part.of(self._dataset.part(index, self._parts), first=index * 2**32)
        return self._held[index]


@dataclass(frozen=True)
class _Part:
    train: sp.csr_array
    """The users that are trained on."""
    blocks: list[UserBlock]
    """The users that have something to predict on validation."""

    @classmethod
    def of(cls, histories: Histories, *, first: int) -> _Part:
        return cls(histories.training_matrix(), user_blocks(histories, "validation", first=first))


def _dropped(train: sp.csr_array, rate: float, rng: np.random.Generator) -> tuple[sp.csr_array, sp.csr_array]:
    """Every interaction goes, by itself with probability `rate`, from the context to the targets."""
    goes = rng.random(train.nnz) < rate
    return chosen_entries(train, ~goes), chosen_entries(train, goes)


@dataclass(frozen=True)
class Users:
    """All parts, as the driver sees them: what they return is added up in their order, whoever computed it."""

    workers: Workers
    parts: int

    def gradients(
        self,
        batch: int,
        summary: Float[np.ndarray, "budget items"],
        dual: Float[np.ndarray, "budget items"],
        config: DistillConfig,
    ) -> BlockGradients:
        """The mean loss of a batch of users, with its gradients."""
        shared = ray.put(summary), ray.put(dual), ray.put(config)
        calls = [(part, batch, *shared) for part in range(self.parts)]
        loss, users = 0.0, 0
        d_dual, d_summary = np.zeros_like(dual), np.zeros_like(summary)
        for gradients, count in self.workers.map("gradients", calls):
            loss += gradients.loss
            d_dual += gradients.dual
            d_summary += gradients.summary
            users += count
        if not users:
            raise InputError("The dataset has no training users.")
        return BlockGradients(loss / users, d_dual / users, d_summary / users)

    def judge(
        self,
        ntk: NTK,
        summary: Float[np.ndarray, "budget items"],
        duals: Sequence[Float[np.ndarray, "budget items"]],
        *,
        seed: int,
    ) -> list[dict[str, float]]:
        """The validation metrics of every α."""
        shared = ray.put(summary), ray.put(list(duals)), seed
        judged = list(self.workers.map("judge", [(part, ntk, *shared) for part in range(self.parts)]))
        blocks = [[block for part in judged for block in part[index]] for index in range(len(duals))]
        if not any(block.users for block in blocks[0]):
            raise InputError("The dataset has no validation interactions to choose a summary on.")
        return [combine(metrics) for metrics in blocks]
