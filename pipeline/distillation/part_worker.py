"""The real users of some parts of a dataset, on the actor that holds them: it learns from them and judges by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float, Float32, Int

from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel
from infrec.kernels.metrics import BlockMetrics, propensity_weights
from infrec.kernels.ntk import NTK
from infrec.kernels.nystrom import NormalEquations
from infrec.kernels.outer_loss import Batch, Gradients, InnerModel, UsersLoss
from infrec.kernels.ranking import exclude, top_k
from infrec.kernels.sparse import chosen_entries
from infrec.pipeline.cluster import give_back_memory
from infrec.pipeline.data import (
    PARTS,
    Dataset,
    Histories,
    ShardSlice,
    UserBlock,
    by_shard,
    judging_rows,
    judging_users,
    user_blocks,
)
from infrec.pipeline.distillation.config import DistillConfig, Objective
from infrec.pipeline.distillation.denoising import Denoising
from infrec.pipeline.distillation.rows import SharedRows, TrainingRows

_REGRESSED = 2048
"""The number of users whose kernel with the synthetic users is held at once while labels are solved."""


class Coefficients(NamedTuple):
    """A model on the synthetic users, to be judged: its scores are K(x, S) dual, times the labels if there are any."""

    dual: Float32[np.ndarray, "budget columns"]
    """α = M⁻¹ S of the items that synthetic users weigh; or M⁻¹ F of the left factor F of labels."""
    labels: Float32[np.ndarray, "columns labelled"] | None = None
    """The right factor of the labels: of all items, or of those that synthetic users weigh."""


@dataclass
class Share:
    """The contribution of some users to the loss of a batch."""

    gradients: Gradients
    users: int

    def __iadd__(self, other: Share) -> Share:
        """Add in place where the arrays belong to this process and not to the object store."""
        (loss, *mine), (more, *others) = self.gradients, other.gradients
        sums = (np.add(a, b, out=a if a.flags.writeable else None) for a, b in zip(mine, others, strict=True))
        self.gradients = Gradients(loss + more, *sums)
        self.users += other.users
        return self


def summed_in_pairs(shares: Iterator[Share], count: int) -> Share:
    """Return the sum of the next `count` shares: sum pairs, then pairs of these sums, and an odd number from the left.

    The bytes are therefore the same, whichever actor sums a run of `runs_of_parts`.
    """
    while count % 2 == 0:
        shares, count = _pairs(shares), count // 2
    total = next(shares)
    for _ in range(count - 1):
        total += next(shares)
    return total


def _pairs(shares: Iterator[Share]) -> Iterator[Share]:
    for share in shares:
        share += next(shares)
        yield share


class PartWorker:
    """A worker that holds some parts of a dataset's users. It reads each part when it is first asked for it.

    Memory never holds more than one shard, the users of a batch, and the judged users of its parts. Every result is
    a pure function of (dataset, part, arguments). So a worker that died is replaced, and only the call in hand is lost.
    """

    def __init__(
        self,
        dataset: Dataset,
        parts: int,
        judged_users: int,
        seed: int,
        items: Int[np.ndarray, " weighted"] | None = None,
    ) -> None:
        """`judged_users` is their number in all parts together: see `judging_users`.

        `items` are those that synthetic users have weights for, ascending. None means all.
        """
        self._dataset, self._parts, self._seed = dataset, parts, seed
        self._judged_users = -(-judging_users(judged_users, dataset.num_items) // parts)
        self._items = items if items is not None and len(items) < dataset.num_items else None
        self._training: dict[int, TrainingRows | SharedRows] = {}
        self._judged: dict[int, list[UserBlock]] = {}
        counts = dataset.items()["train_count"].to_numpy()
        self._weights = propensity_weights(counts)
        covered = 1.0 if self._items is None else counts[self._items].sum() / max(counts.sum(), 1)
        self._mean_interactions = dataset.mean_train_interactions * covered

    def gradients(
        self,
        parts: range,
        batch: int,
        model: InnerModel,
        config: DistillConfig,
    ) -> Share:
        """Return the share of some parts in the loss of the `batch`-th batch, and in its gradients."""
        fresh = parts[0] not in self._training
        loss = UsersLoss(config.ntk, model)
        shares = (self._part_gradients(part, batch, loss, config) for part in parts)
        share = summed_in_pairs(shares, len(parts))
        if fresh:  # the call has read the parts, and perhaps compiled
            give_back_memory()
        return share

    def _part_gradients(
        self,
        part: int,
        batch: int,
        loss: UsersLoss,
        config: DistillConfig,
    ) -> Share:
        rows = self._training_rows(part)
        rng = np.random.default_rng([config.seed, batch, part])
        share = -(-config.batch // config.parts)
        users = np.sort(rng.choice(len(rows), share, replace=False)) if share < len(rows) else np.arange(len(rows))
        train = self._weighted(rows[users])
        if config.objective == Objective.HELD_OUT:
            context, targets = _dropped(train, config.drop, rng)
            left_out = context
        else:
            context = targets = train
            left_out = sp.csr_array(train.shape, dtype=train.dtype)
        sizes = np.maximum(np.diff(targets.indptr), 1)
        # Sizes are relative to the mean number of targets, so that ω does not change the scale of the loss
        expected = self._mean_interactions * (config.drop if left_out is context else 1.0)
        weights = ((expected / sizes) ** config.user_weight).astype(np.float32)
        given = Batch(context, targets, left_out, weights)
        return Share(loss.gradients(given), len(users))

    def judge(
        self,
        part: int,
        ntk: NTK,
        summary: Float[np.ndarray, "budget weighted"],
        models: Sequence[Coefficients],
    ) -> list[list[BlockMetrics]]:
        """Return the part's share of the validation metrics for every model, block by block."""
        judged: list[list[BlockMetrics]] = [[] for _ in models]
        for block, model, scores in self._scores(part, ntk, summary, models):
            weighted_only = self._items is not None and scores.shape[1] == len(self._items)
            scored = self._items if weighted_only else None
            judged[model].append(block.metrics(scores, self._weights, scored=scored))
        give_back_memory()
        return judged

    def recommended(
        self,
        part: int,
        ntk: NTK,
        summary: Float[np.ndarray, "budget weighted"],
        model: Coefficients,
        k: int,
    ) -> list[Int[np.ndarray, "users k"]]:
        """Return the first k items for the part's judged users by a model that scores all items, block by block."""
        lists = []
        for block, _, scores in self._scores(part, ntk, summary, [model]):
            exclude(scores, block.context)
            lists.append(top_k(scores, k))
        give_back_memory()
        return lists

    def _scores(
        self,
        part: int,
        ntk: NTK,
        summary: Float[np.ndarray, "budget weighted"],
        models: Sequence[Coefficients],
    ) -> Iterator[tuple[UserBlock, int, Float32[np.ndarray, "users scored"]]]:
        """Yield the scores for each block of judged users by each model, with the number of the model."""
        kernel_of = LandmarkKernel.of(ntk, KernelRows.of(sp.csr_array(summary)))
        for block in self.judged_blocks(part):
            kernel = kernel_of(KernelRows.of(self._weighted(block.context)))
            for number, model in enumerate(models):
                scores = kernel @ model.dual
                yield block, number, scores if model.labels is None else scores @ model.labels

    def normal_equations(
        self,
        part: int,
        ntk: NTK,
        summary: Float32[np.ndarray, "budget weighted"],
        denoising: Denoising,
        strip: slice | None,
    ) -> NormalEquations:
        """Return the share of the part's users in the regression that solves the labels of a strip of all items.

        None means the weighted items. R is rounded to float32, the precision of the kernel values in it. The rest of
        the equations is in the share of the first strip.
        """
        kernel = LandmarkKernel.of(ntk, KernelRows.of(sp.csr_array(summary)))
        rows = self._training_rows(part)
        items = summary.shape[1] if strip is None else strip.stop - strip.start
        share = NormalEquations.empty(len(summary), items)
        for start in range(0, len(rows), _REGRESSED):
            users = rows[np.arange(start, min(start + _REGRESSED, len(rows)))]
            targets = self._weighted(users) if strip is None else users[:, strip]
            weights, other = denoising.weights(users), strip is not None and strip.start > 0
            seen = (KernelRows.of(self._weighted(inputs)) for inputs in denoising.inputs(users, part, start))
            share.add(kernel, seen, targets, weights, targets_only=other)
        share.targets = share.targets.astype(np.float32)
        give_back_memory()
        return share

    def _weighted(self, users: sp.csr_array) -> sp.csr_array:
        """Return the users' rows (CSR) without the items that synthetic users do not weigh."""
        return users if self._items is None else users[:, self._items]

    def _training_rows(self, part: int) -> TrainingRows | SharedRows:
        if part not in self._training:
            kind = SharedRows if self._dataset.in_store else TrainingRows
            self._training[part] = kind(self._dataset, self._dataset.part(part, self._parts))
        return self._training[part]

    def judged_blocks(self, part: int) -> list[UserBlock]:
        """Return the judged users of a part in blocks."""
        if part not in self._judged:
            cuts = self._dataset.part(part, self._parts)
            rng = np.random.default_rng([self._seed, 1, part])
            sample = _judged_sample(self._dataset, cuts, self._judged_users, rng)
            first = part * 2**32
            self._judged[part] = user_blocks(sample, "validation", seed=self._seed, first=first) if sample else []
        return self._judged[part]


def _judged_sample(
    dataset: Dataset, cuts: Sequence[ShardSlice], most: int, rng: np.random.Generator
) -> Histories | None:
    """Return up to `most` random users that have something to predict on validation; None if there are no slices."""
    if not cuts:
        return None
    judging = [judging_rows(dataset.table(cut, ["validation"])) for cut in cuts]
    sizes = [len(rows) for rows in judging]
    drawn = np.sort(rng.choice(sum(sizes), min(most, sum(sizes)), replace=False))
    tables = [
        dataset.table(cut, ["user_id", "held_out", *PARTS]).take(pa.array(rows[chosen]))
        for cut, rows, chosen in zip(cuts, judging, by_shard(drawn, sizes), strict=True)
    ]
    return Histories.of(pa.concat_tables(tables), dataset.num_items)


def _dropped(train: sp.csr_array, rate: float, rng: np.random.Generator) -> tuple[sp.csr_array, sp.csr_array]:
    """Return context and targets: each interaction, independently, is a target with the probability `rate`."""
    goes = rng.random(train.nnz) < rate
    return chosen_entries(train, ~goes), chosen_entries(train, goes)
