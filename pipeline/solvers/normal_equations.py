"""Nyström's normal equations of any number of users: workers read users slice by slice, the driver adds up shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Int

from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel
from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from infrec.kernels.ntk import NTK
from infrec.kernels.nystrom import NormalEquations
from infrec.pipeline.cluster import Report, Workers, silent
from infrec.pipeline.data import Dataset, Histories, ShardSlice, by_shard, csr_of, judging_rows, training_lists

SHARES = 32
"""The number of shares that the users are divided into, however many users there are.

Each share passes M × I numbers between processes.
"""

STRIP_ENTRIES = 1 << 26
"""The entries of R that a worker holds at once: 512 MB in float64."""
STRIP_BYTES = 8 + 4 + 4
"""Bytes in a worker for each entry of a strip: in float64, rounded, and on its way out."""

SLICE_USERS = 2048
"""The number of users whose kernel with the landmarks is held at once. It is enough for products at full rate."""


@dataclass(frozen=True)
class Survey:
    """The counts that are taken of the users before any kernel is computed."""

    training: list[int]
    """The number of training users of each shard."""
    judging: list[int]
    """The number of judging users of each shard: users that have something to predict on validation."""
    squares: list[float]
    """Σ_u |x_u|² of the unscaled rows, for each pair of exponents: see `DegreeNormalisation.squares`."""

    @classmethod
    def of(
        cls, workers: Workers, dataset: Dataset, exponents: Sequence[Exponents], *, report: Report = silent
    ) -> Survey:
        """Let `NormalEquationsWorker`s count, in one pass over the data."""
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
    """Fetch the train rows (CSR, users × items) of some training users, and the histories of some judging users.

    `training` and `judging` are the positions of these users among all training users and among all judging users,
    ascending.
    """
    shards = zip(by_shard(training, survey.training), by_shard(judging, survey.judging), strict=True)
    found = workers.map("chosen", [(shard, *positions) for shard, positions in enumerate(shards)])
    lists, tables = zip(*found, strict=True)
    train = csr_of(pa.chunked_array(lists), dataset.num_items)
    return train, Histories.of(pa.concat_tables(tables), dataset.num_items)


def strips_of_items(landmarks: int, items: int) -> list[slice]:
    """Return the strips of items of which workers make R, one after another. Most catalogues are one strip."""
    width = max(1, STRIP_ENTRIES // landmarks)
    return [slice(start, min(start + width, items)) for start in range(0, items, width)]


def sum_in_strips(
    shares: Iterator[NormalEquations], count: int, landmarks: int, strips: Sequence[slice], phase: str, report: Report
) -> NormalEquations:
    """Return the sum of `count` shares for each strip of items, in the order of the strips, with R in float32.

    The shares of the first strip are whole, those of the others have only R (`NormalEquations.add`). So no matrix of
    landmarks × items is in float64.
    """
    total = NormalEquations(np.zeros((landmarks, landmarks)), np.empty((landmarks, strips[-1].stop), np.float32))
    for number, strip in enumerate(strips):
        summed = NormalEquations.empty(landmarks, strip.stop - strip.start)
        for share in range(count):
            summed += next(shares)
            report(phase, number * count + share + 1, len(strips) * count)
        total.targets[:, strip] = summed.targets
        total.gram += summed.gram
        total.trace += summed.trace
        total.users += summed.users
    return total


def sum_normal_equations(
    workers: Workers,
    dataset: Dataset,
    ntk: NTK,
    normalisation: DegreeNormalisation,
    landmarks: KernelRows,
    *,
    report: Report = silent,
) -> NormalEquations:
    """Return the normal equations of the regression of all training users on the landmarks, which are normalised.

    `NormalEquationsWorker`s compute the shares. The maths is in `kernels.nystrom`.
    """
    slices = dataset.slices(SLICE_USERS)
    shares = min(SHARES, len(slices))
    bounds = [len(slices) * share // shares for share in range(shares + 1)]
    shared = workers.share(normalisation), workers.share(landmarks)
    strips = strips_of_items(*landmarks.rows.shape)
    calls = [(slices[start:stop], ntk, *shared, strip) for strip in strips for start, stop in pairwise(bounds)]
    phase = f"Normal equations ({normalisation.exponents})"
    return sum_in_strips(workers.map("share", calls), shares, len(landmarks.squares), strips, phase, report)


def train_counts(dataset: Dataset) -> Int[np.ndarray, " items"]:
    """Return how many training users have each item: the column sums of the train matrix."""
    counts: np.ndarray = dataset.items()["train_count"].to_numpy()
    return counts


class NormalEquationsWorker:
    """A worker that reads some of a dataset's users at a time. It keeps only the training users of the last shard.

    Everything that it returns is a pure function of (dataset, arguments).
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._degrees = train_counts(dataset)
        self._shard: tuple[int, sp.csr_array, np.ndarray] | None = None

    def survey(self, shard: int, exponents: Sequence[Exponents]) -> tuple[int, int, list[float]]:
        """Return the shard's numbers of training users and of judging users, and its sums of squares.

        There is one sum, `DegreeNormalisation.squares`, for each pair of exponents.
        """
        table = self._dataset.shard_table(shard, ["held_out", "train", "validation"])
        train = self._training(table)
        normalisations = [DegreeNormalisation.of_degrees(self._degrees, pair) for pair in exponents]
        return train.shape[0], len(judging_rows(table)), [each.squares(train) for each in normalisations]

    def chosen(
        self, shard: int, training: Int[np.ndarray, " chosen"], judging: Int[np.ndarray, " sample"]
    ) -> tuple[pa.Array, pa.Table]:
        """Return the train lists of some of the shard's training users, and the rows of some of its judging users."""
        table = self._dataset.shard_table(shard)
        lists = training_lists(table).take(pa.array(training))
        return lists, table.take(pa.array(judging_rows(table)[judging]))

    def share(
        self,
        slices: Sequence[ShardSlice],
        ntk: NTK,
        normalisation: DegreeNormalisation,
        landmarks: KernelRows,
        strip: slice,
    ) -> NormalEquations:
        """Return the share of these users for a strip of items.

        R is rounded to float32, the precision of the kernel values in it. The rest of the equations is in the share for
        the first strip.
        """
        total = NormalEquations.empty(len(landmarks.squares), strip.stop - strip.start)
        kernel = LandmarkKernel.of(ntk, landmarks)
        for cut in slices:
            if self._shard is None or self._shard[0] != cut.shard:
                table = self._dataset.shard_table(cut.shard, ["held_out", "train"])
                self._shard = cut.shard, csr_of(table["train"], len(self._degrees)), table["held_out"].to_numpy()
            _, train, held_out = self._shard
            users = train[cut.users][~held_out[cut.users]]
            seen = KernelRows.of(normalisation(users))
            total.add(kernel, [seen], users[:, strip], targets_only=strip.start > 0)
        return replace(total, targets=total.targets.astype(np.float32))

    def _training(self, table: pa.Table) -> sp.csr_array:
        return csr_of(pa.chunked_array([training_lists(table)]), len(self._degrees))
