"""Nyström's normal equations of any number of users: actors read them slice by slice, the driver adds up shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Int

from infrec.kernels.kernel_matrix import KernelRows
from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from infrec.kernels.ntk import NTK
from infrec.kernels.nystrom import NormalEquations
from infrec.pipeline.cluster import Report, Workers, silent
from infrec.pipeline.data import Dataset, Histories, ShardSlice, by_shard, csr_of, judging_rows, training_lists

SHARES = 32
"""Shares that all users are divided into: M × I numbers pass between processes so many times, whatever their number."""

SLICE_USERS = 2048
"""Users whose kernel with the landmarks is held at once: enough for products at full rate."""


@dataclass(frozen=True)
class Survey:
    """What is known of the users before any kernel is computed."""

    training: list[int]
    """Of each shard, how many users are trained on."""
    judging: list[int]
    """Of each shard, how many users have something to predict on validation."""
    squares: list[float]
    """For each pair of exponents, Σ_u |x_u|² of the unscaled rows: `DegreeNormalisation.squares`."""

    @classmethod
    def of(
        cls, workers: Workers, dataset: Dataset, exponents: Sequence[Exponents], *, report: Report = silent
    ) -> Survey:
        """One pass over the data, by `NormalEquationsWorker`s."""
        shards: list[tuple[int, int, list[float]]] = []
        for found in workers.map("survey", [(shard, exponents) for shard in range(dataset.num_shards)]):
            shards.append(found)
            report("Shards counted", len(shards), dataset.num_shards)
        training, judging, squares = zip(*shards, strict=True)
        return cls(list(training), list(judging), [sum(column) for column in zip(*squares, strict=True)])


def chosen_users(
    workers: Workers,
    dataset: Dataset,
    survey: Survey,
    *,
    training: Int[np.ndarray, " chosen"],
    judging: Int[np.ndarray, " sample"],
) -> tuple[sp.csr_array, Histories]:
    """The train rows of some of the training users, and all of some of those that are judged by.

    Both are given by their positions among their like, ascending.
    """
    shards = zip(by_shard(training, survey.training), by_shard(judging, survey.judging), strict=True)
    found = workers.map("chosen", [(shard, *positions) for shard, positions in enumerate(shards)])
    lists, tables = zip(*found, strict=True)
    train = csr_of(pa.chunked_array(lists), dataset.num_items)
    return train, Histories.of(pa.concat_tables(tables), dataset.num_items)


def normal_equations(
    workers: Workers,
    dataset: Dataset,
    ntk: NTK,
    normalisation: DegreeNormalisation,
    landmarks: KernelRows,
    *,
    report: Report = silent,
) -> NormalEquations:
    """Of the regression of all training users on these (normalised) landmarks, by `NormalEquationsWorker`s."""
    slices = dataset.slices(SLICE_USERS)
    shares = min(SHARES, len(slices))
    bounds = [len(slices) * share // shares for share in range(shares + 1)]
    shared = workers.share(normalisation), workers.share(landmarks)
    calls = [(slices[start:stop], ntk, *shared) for start, stop in pairwise(bounds)]
    total = NormalEquations.empty(*landmarks.rows.shape)
    for done, share in enumerate(workers.map("share", calls), start=1):
        total += share
        report(f"Normal equations ({normalisation.exponents})", done, shares)
    return total


def train_counts(dataset: Dataset) -> Int[np.ndarray, " items"]:
    """How many training users have each item: the column sums of the train matrix."""
    counts: np.ndarray = dataset.items()["train_count"].to_numpy()
    return counts


class NormalEquationsWorker:
    """Reads some of a dataset's users at a time and keeps nobody but the last shard's training users.

    Everything that it returns is a pure function of (dataset, arguments).
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._degrees = train_counts(dataset)
        self._shard: tuple[int, sp.csr_array, np.ndarray] | None = None

    def survey(self, shard: int, exponents: Sequence[Exponents]) -> tuple[int, int, list[float]]:
        """How many users train, how many are judged by, and for each of the exponents `DegreeNormalisation.squares`."""
        table = self._dataset.shard_table(shard, ["held_out", "train", "validation"])
        train = self._training(table)
        normalisations = [DegreeNormalisation.of_degrees(self._degrees, pair) for pair in exponents]
        return train.shape[0], len(judging_rows(table)), [each.squares(train) for each in normalisations]

    def chosen(
        self, shard: int, training: Int[np.ndarray, " chosen"], judging: Int[np.ndarray, " sample"]
    ) -> tuple[pa.Array, pa.Table]:
        """The train lists of some of the shard's training users, and the rows of some of those that are judged by."""
        table = self._dataset.shard_table(shard)
        lists = training_lists(table).take(pa.array(training))
        return lists, table.take(pa.array(judging_rows(table)[judging]))

    def share(
        self, slices: Sequence[ShardSlice], ntk: NTK, normalisation: DegreeNormalisation, landmarks: KernelRows
    ) -> NormalEquations:
        """What these users contribute; R is rounded to float32, the precision of the kernel values in it."""
        total = NormalEquations.empty(*landmarks.rows.shape)
        for cut in slices:
            if self._shard is None or self._shard[0] != cut.shard:
                table = self._dataset.shard_table(cut.shard, ["held_out", "train"])
                self._shard = cut.shard, csr_of(table["train"], len(self._degrees)), table["held_out"].to_numpy()
            _, train, held_out = self._shard
            users = train[cut.users][~held_out[cut.users]]
            total.add(ntk, KernelRows.of(normalisation(users)), users, landmarks)
        return replace(total, targets=total.targets.astype(np.float32))

    def _training(self, table: pa.Table) -> sp.csr_array:
        return csr_of(pa.chunked_array([training_lists(table)]), len(self._degrees))
