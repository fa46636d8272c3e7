"""The dataset artefact: who interacted with which items, split into train, validation and test.

    items.parquet        item_id (as it came in), train_count (int64); the row number is the item index
    users-00000.parquet  user_id (as it came in), held_out (bool), train, validation, test (list<int32>, sorted
    users-00001.parquet  item indices); one file a shard, users sorted by id within it
    …
    additions-00000.parquet …  interactions that each shard's users gained later: see `pipeline.data.additions`

`held_out` users (strong generalisation) are never trained on: their `train` list is the context of recommendations.
All other users are trained on. At validation the context is `train`; at test it is `train` and `validation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp
from jaxtyping import Int

from infrec.pipeline.data.additions import additions_name, with_additions
from infrec.pipeline.storage import Artefact, Kind, Location, Manifest

if TYPE_CHECKING:
    import ray

ITEMS = "items.parquet"
PARTS = ("train", "validation", "test")
OF_ADDITIONS = ("additions", "shard_users")
"""Counts that only a dataset with additions has: the interactions in additions, and the users of each shard."""
COLUMNS = ("user_id", "held_out", *PARTS)


def shard_name(index: int) -> str:
    """Return the name of a shard's file."""
    return f"users-{index:05d}.parquet"


@dataclass(frozen=True)
class Histories:
    """The interactions of some users: a shard of a dataset, or several shards one after another.

    The three matrices are binary CSR, users × items, with float32 ones. Column indices are sorted within rows.
    """

    user_ids: pa.Array
    held_out: np.ndarray
    train: sp.csr_array
    validation: sp.csr_array
    test: sp.csr_array

    @classmethod
    def of(cls, table: pa.Table, num_items: int) -> Histories:
        """Make the histories from a `users-*.parquet` table."""
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
        """Return the matrix of the users that models are trained on (all that are not held out) × items."""
        return self.train[~self.held_out] if self.held_out.any() else self.train

    def context(self, part: str) -> sp.csr_array:
        """Return the matrix of the items that are known when `part` ("validation" or "test") is predicted."""
        if part == "validation":
            return self.train
        union = sp.csr_array(self.train + self.validation)
        union.sort_indices()
        return union

    def truth(self, part: str) -> sp.csr_array:
        """Return the matrix of the items to predict in `part` ("validation" or "test")."""
        return self.validation if part == "validation" else self.test


@dataclass(frozen=True)
class ShardSlice:
    """A slice: some consecutive users of a shard. Its size does not depend on the sizes of the shards."""

    shard: int
    users: slice

    def __len__(self) -> int:
        return int(self.users.stop - self.users.start)


@dataclass(frozen=True)
class Dataset:
    """A published dataset, open for reading. It can be pickled. Each process reads the shards that it needs."""

    artefact: Artefact
    in_store: tuple[ray.ObjectRef, ...] = ()
    """Each shard's table in Ray's object store, if `shared` has put it there."""

    @classmethod
    def open(cls, uri: str | Location) -> Dataset:
        return cls(Artefact.open(uri, Kind.DATASET))

    def shared(self) -> Dataset:
        """Read all shards once into Ray's object store. The processes of a node then look at one copy of them.

        Call this inside `ray_session`, in a process that lives as long as the others read: the store keeps what its
        owner put there, whichever other nodes are lost.
        """
        import ray

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
        """Return the manifest's counts as they will be once every shard is written anew."""
        return {name: count for name, count in self.manifest.counts.items() if name not in OF_ADDITIONS}

    def items(self) -> pa.Table:
        """Return the table of items (item_id, train_count). Row i is item index i."""
        return self.artefact.table(ITEMS)

    def shard_table(self, index: int, columns: Sequence[str] = COLUMNS) -> pa.Table:
        """Return some columns of a shard's users, additions merged in. Every reader of shards calls this method."""
        if self.in_store:
            import ray

            table: pa.Table = ray.get(self.in_store[index])
            return table.select(list(columns))
        shard, addition = self.layers(index, columns)
        return shard if addition is None else with_additions(shard, addition)

    def layers(self, index: int, columns: Sequence[str] = COLUMNS) -> tuple[pa.Table, pa.Table | None]:
        """Return some columns of a shard as it was written, and of its additions (None if it has none)."""
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
        """The mean number of train interactions of the users that models are trained on."""
        return float(pc.sum(self.items()["train_count"]).as_py() or 0) / max(1, self.num_training_users)

    def part(self, index: int, parts: int) -> list[ShardSlice]:
        """Return the index-th of `parts` runs of users, in dataset order. Their lengths differ by at most one user."""
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
        """Return some columns of a slice of a shard."""
        return self.shard_table(cut.shard, columns)[cut.users]

    def slices(self, users: int) -> list[ShardSlice]:
        """Cut the whole dataset, in order, into slices of up to `users` users that do not cross shards."""
        return [
            ShardSlice(shard, slice(start, min(start + users, size)))
            for shard, size in enumerate(self.shard_sizes())
            for start in range(0, size, users)
        ]

    def shard_sizes(self) -> Iterator[int]:
        """Yield every shard's number of users: from the files' footers, or from the manifest if there are additions."""
        if self.has_additions:
            yield from self.manifest.counts["shard_users"]
            return
        for index in range(self.num_shards):
            location = self.artefact.location / shard_name(index)
            with location.filesystem.open_input_file(location.path) as source:
                yield int(pq.read_metadata(source).num_rows)

    def training_matrix(self) -> sp.csr_array:
        """Return the matrix of the users that models are trained on (all that are not held out), in shard order."""
        return self.histories().training_matrix()

    def training_sizes(self) -> Int[np.ndarray, " users"]:
        """Return how many train interactions each row of `training_matrix` has. This reads one shard at a time."""
        return np.concatenate([pc.list_value_length(lists).to_numpy() for lists in self._training_lists()])

    def training_rows(self, users: Int[np.ndarray, " chosen"]) -> sp.csr_array:
        """Return these (distinct) rows of `training_matrix`, in this order. This reads one shard at a time."""
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
        """Yield each shard's train lists of the users that models are trained on."""
        for index in range(self.num_shards):
            yield training_lists(self.shard_table(index, ["held_out", "train"]))

    def histories(self) -> Histories:
        """Return all users in shard order, for datasets whose sparse interactions fit in memory."""
        tables = [self.shard_table(index) for index in range(self.num_shards)]
        return Histories.of(pa.concat_tables(tables), self.num_items)


def training_lists(table: pa.Table) -> pa.ListArray:
    """Return the train lists (list<int32>) of a shard's users that are not held out."""
    trained = np.flatnonzero(~table["held_out"].to_numpy())
    return table["train"].combine_chunks().take(pa.array(trained))


def judging_rows(table: pa.Table) -> Int[np.ndarray, " users"]:
    """Return the rows of a shard's users that have something to predict on validation."""
    return np.flatnonzero(pc.list_value_length(table["validation"]).to_numpy())


def by_shard(positions: Int[np.ndarray, " chosen"], sizes: Sequence[int]) -> list[np.ndarray]:
    """Split ascending positions of users by shard (of `sizes` users), and count them from the shard's first user."""
    stops = np.cumsum(sizes)
    parts = np.split(positions, np.searchsorted(positions, stops[:-1]))
    return [part - (stop - size) for part, stop, size in zip(parts, stops, sizes, strict=True)]


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a copy of a numeric column without nulls."""
    # `to_numpy` would load pandas, which takes a quarter of a second in every actor
    return np.array(np.from_dlpack(column.combine_chunks()))


def csr_of(column: pa.ChunkedArray, num_items: int) -> sp.csr_array:
    """Return binary CSR, users × items (float32), from a column of lists of item indices."""
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
    """Invert `csr_of`: return each row's item indices as list<int32>."""
    return pa.ListArray.from_arrays(matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32))
