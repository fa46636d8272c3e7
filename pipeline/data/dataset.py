"""The dataset artefact: who interacted with what, split into train, validation and test.

    items.parquet        item_id (as it came in), train_count (int64); the row number is the item index
    users-00000.parquet  user_id (as it came in), held_out (bool), train, validation, test (list<int32>, sorted
    users-00001.parquet  item indices); one file a shard, users sorted by id within it
    …
    additions-00000.parquet …  what each shard's users gained since: `pipeline.data.additions`

`held_out` users (strong generalisation) are never trained on: their `train` list is the context they are recommended
from. Everyone else is trained on. At validation the context is `train`; at test it is `train` and `validation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import scipy.sparse as sp
from jaxtyping import Int

from infrec.pipeline.data.additions import additions_name, with_additions
from infrec.pipeline.storage import Artefact, Kind, Location, Manifest

ITEMS = "items.parquet"
PARTS = ("train", "validation", "test")
OF_ADDITIONS = ("additions", "shard_users")
"""Counts of a dataset that has grown since its shards were written: interactions in additions, users of each shard."""
COLUMNS = ("user_id", "held_out", *PARTS)


def shard_name(index: int) -> str:
    return f"users-{index:05d}.parquet"


@dataclass(frozen=True)
class Histories:
    """Some users' interactions: a shard of a dataset, or several shards one after another.

    The three matrices are binary CSR, users × items, float32 ones, column indices sorted within rows.
    """

    user_ids: pa.Array
    held_out: np.ndarray
    train: sp.csr_array
    validation: sp.csr_array
    test: sp.csr_array

    @classmethod
    def of(cls, table: pa.Table, num_items: int) -> Histories:
        """From a `users-*.parquet` table."""
        return cls(
            user_ids=table["user_id"].combine_chunks(),
            held_out=numbers(table["held_out"].cast(pa.uint8())).astype(bool),
            train=csr_of(table["train"], num_items),
            validation=csr_of(table["validation"], num_items),
            test=csr_of(table["test"], num_items),
        )

    def __len__(self) -> int:
        return len(self.user_ids)

    def __getitem__(self, users: slice) -> Histories:
        return Histories(
            self.user_ids[users],
            self.held_out[users],
            self.train[users],
            self.validation[users],
            self.test[users],
        )

    def training_matrix(self) -> sp.csr_array:
        """The users that models are trained on (all that are not held out) × items."""
        return self.train[~self.held_out] if self.held_out.any() else self.train

    def context(self, part: str) -> sp.csr_array:
        """What is known of each user when `part` ("validation" or "test") is predicted."""
        if part == "validation":
            return self.train
        union = sp.csr_array(self.train + self.validation)
        union.sort_indices()
        return union

    def truth(self, part: str) -> sp.csr_array:
        """What is to be predicted in `part` ("validation" or "test")."""
        return self.validation if part == "validation" else self.test


@dataclass(frozen=True)
class ShardSlice:
    """Some consecutive users of a shard: a piece of work of a size that does not depend on the shards."""

    shard: int
    users: slice

    def __len__(self) -> int:
        return int(self.users.stop - self.users.start)


@dataclass(frozen=True)
class Dataset:
    """A published dataset, open for reading. Picklable; shards are read where they are needed."""

    artefact: Artefact
    in_store: tuple[ray.ObjectRef, ...] = ()
    """Each shard's table in Ray's object store, where `shared` has put it."""

    @classmethod
    def open(cls, uri: str | Location) -> Dataset:
        return cls(Artefact.open(uri, Kind.DATASET))

    def shared(self) -> Dataset:
        """The same, read once: processes find its shards in their node's object store, and look at one copy of them.

        To be called inside `ray_session`, by a process that lives as long as the others read: the store keeps what its
        owner put there, whichever other nodes are lost.
        """
        shards = range(self.num_shards)
        return replace(self, in_store=tuple(ray.put(self.shard_table(index).combine_chunks()) for index in shards))

    @property
    def manifest(self) -> Manifest:
        return self.artefact.manifest

    @property
    def num_users(self) -> int:
        return int(self.manifest.counts["users"])

    @property
    def num_items(self) -> int:
        return int(self.manifest.counts["items"])

    @property
    def has_held_out_users(self) -> bool:
        """Whether the dataset is one of strong generalisation: then only held-out users have something to predict."""
        return bool(self.manifest.counts["held_out_users"])

    @property
    def num_shards(self) -> int:
        return int(self.manifest.counts["shards"])

    @property
    def has_additions(self) -> bool:
        """Whether the dataset has grown since its shards were written."""
        return "additions" in self.manifest.counts

    def counts_of_whole_shards(self) -> dict[str, Any]:
        """The manifest's counts, as they are once every shard is written anew."""
        return {name: count for name, count in self.manifest.counts.items() if name not in OF_ADDITIONS}

    def items(self) -> pa.Table:
        """item_id, train_count; row i is item index i."""
        return self.artefact.table(ITEMS)

    def shard_table(self, index: int, columns: Sequence[str] = COLUMNS) -> pa.Table:
        """Some columns of a shard's users with all that they gained: every reader of shards comes through here."""
        if self.in_store:
            table: pa.Table = ray.get(self.in_store[index])
            return table.select(list(columns))
        shard, addition = self.layers(index, columns)
        return shard if addition is None else with_additions(shard, addition)

    def layers(self, index: int, columns: Sequence[str] = COLUMNS) -> tuple[pa.Table, pa.Table | None]:
        """Some columns of a shard as it was written, and what was added since, if anything."""
        shard = self.artefact.table(shard_name(index), columns=list(columns))
        if additions_name(index) not in self.manifest.files:
            return shard, None
        added = ["row", "user_id", *(name for name in columns if name in PARTS)]
        return shard, self.artefact.table(additions_name(index), columns=added)

    def shard(self, index: int) -> Histories:
        return Histories.of(self.shard_table(index), self.num_items)

    @property
    def num_training_users(self) -> int:
        return self.num_users - int(self.manifest.counts["held_out_users"])

    @property
    def mean_train_interactions(self) -> float:
        """Of the users that models are trained on."""
        return float(pc.sum(self.items()["train_count"]).as_py() or 0) / max(1, self.num_training_users)

    def part(self, index: int, parts: int) -> list[ShardSlice]:
        """The index-th of `parts` runs of users, in dataset order and of equal length up to one user."""
        start, stop = (self.num_users * bound // parts for bound in (index, index + 1))
        cuts: list[ShardSlice] = []
        first = 0
        for shard, size in enumerate(self.shard_sizes()):
            low, high = max(start - first, 0), min(stop - first, size)
            if low < high:
                cuts.append(ShardSlice(shard, slice(low, high)))
            first += size
        return cuts

    def table(self, cut: ShardSlice, columns: list[str]) -> pa.Table:
        """Some columns of a slice of a shard."""
        return self.shard_table(cut.shard, columns)[cut.users]

    def slices(self, users: int) -> list[ShardSlice]:
        """The whole dataset in order, cut into slices of up to `users` users that do not cross shards."""
        return [
            ShardSlice(shard, slice(start, min(start + users, size)))
            for shard, size in enumerate(self.shard_sizes())
            for start in range(0, size, users)
        ]

    def shard_sizes(self) -> Iterator[int]:
        """Users of every shard, from the files' footers; of a dataset that has grown, from the manifest."""
        if self.has_additions:
            yield from self.manifest.counts["shard_users"]
            return
        for index in range(self.num_shards):
            location = self.artefact.location / shard_name(index)
            with location.filesystem.open_input_file(location.path) as source:
                yield int(pq.read_metadata(source).num_rows)

    def training_matrix(self) -> sp.csr_array:
        """The users that models are trained on (all that are not held out), in shard order, × items."""
        return self.histories().training_matrix()

    def training_sizes(self) -> Int[np.ndarray, " users"]:
        """How many train interactions each row of `training_matrix` has, from one shard after another."""
        return np.concatenate([pc.list_value_length(lists).to_numpy() for lists in self._training_lists()])

    def training_rows(self, users: Int[np.ndarray, " chosen"]) -> sp.csr_array:
        """These (distinct) rows of `training_matrix`, in this order, from one shard after another."""
        order = np.argsort(users)
        ascending = users[order]
        lists: list[pa.ListArray] = []
        first = 0
        for shard in self._training_lists():
            low, high = np.searchsorted(ascending, (first, first + len(shard)))
            lists.append(shard.take(pa.array(ascending[low:high] - first)))
            first += len(shard)
        return csr_of(pa.chunked_array(lists), self.num_items)[np.argsort(order)]

    def _training_lists(self) -> Iterator[pa.ListArray]:
        """Of every shard the train lists of the users that models are trained on."""
        for index in range(self.num_shards):
            yield training_lists(self.shard_table(index, ["held_out", "train"]))

    def histories(self) -> Histories:
        """All users, in shard order: for datasets whose sparse interactions fit in memory."""
        tables = [self.shard_table(index) for index in range(self.num_shards)]
        return Histories.of(pa.concat_tables(tables), self.num_items)


def training_lists(table: pa.Table) -> pa.ListArray:
    """The train lists of a shard's users that are not held out."""
    trained = np.flatnonzero(~table["held_out"].to_numpy())
    return table["train"].combine_chunks().take(pa.array(trained))


def judging_rows(table: pa.Table) -> Int[np.ndarray, " users"]:
    """The rows with something to predict on validation."""
    return np.flatnonzero(pc.list_value_length(table["validation"]).to_numpy())


def by_shard(positions: Int[np.ndarray, " chosen"], sizes: Sequence[int]) -> list[np.ndarray]:
    """The (ascending) positions that fall into each shard, counted from its first."""
    stops = np.cumsum(sizes)
    parts = np.split(positions, np.searchsorted(positions, stops[:-1]))
    return [part - (stop - size) for part, stop, size in zip(parts, stops, sizes, strict=True)]


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A numeric column without nulls, copied. `to_numpy` would load pandas: a quarter of a second in every actor."""
    return np.array(np.from_dlpack(column.combine_chunks()))


def csr_of(column: pa.ChunkedArray, num_items: int) -> sp.csr_array:
    """Binary CSR, users × items, from a column of lists of item indices."""
    lengths = numbers(pc.list_value_length(column))
    indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    indices = numbers(pc.list_flatten(column)).astype(np.int32, copy=False)
    if indptr[-1] <= np.iinfo(np.int32).max:  # SciPy wants both index arrays of one type
        indptr = indptr.astype(np.int32)
    else:
        indices = indices.astype(np.int64)
    ones = np.ones(len(indices), dtype=np.float32)
    return sp.csr_array((ones, indices, indptr), shape=(len(lengths), num_items))


def lists_of(matrix: sp.csr_array) -> pa.ListArray:
    """The inverse of `csr_of`: each row's item indices as list<int32>."""
    return pa.ListArray.from_arrays(matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32))
