"""The train interactions of some users. The memory of this process holds only the rows that are asked for.

The other rows are in a file of the process or, if the dataset is shared, in the object store of its node.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from jaxtyping import Int

from infrec.pipeline.data import Dataset, ShardSlice, by_shard, csr_of, training_lists


class TrainingRows:
    """The train rows of the training users in some slices of a dataset: `rows[users]` is CSR, binary float32.

    The file has no name, so it is gone with the process. It is read and not mapped, so that its pages do not count as
    memory of this process.
    """

    def __init__(self, dataset: Dataset, cuts: Sequence[ShardSlice]) -> None:
        self._items = dataset.num_items
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (open for as long as this object lives)
        weakref.finalize(self, self._file.close)
        sizes = [np.zeros(1, np.int64)]
        for cut in cuts:
            lists = training_lists(dataset.table(cut, ["held_out", "train"]))
            sizes.append(pc.list_value_length(lists).to_numpy())
            self._file.write(pc.list_flatten(lists).to_numpy().astype(np.int32).tobytes())
        self._file.flush()
        self._starts = np.cumsum(np.concatenate(sizes))
        """The position of each user's first interaction in the file, and the position after the last user."""

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, users: Int[np.ndarray, " users"]) -> sp.csr_array:
        starts, stops = self._starts[users], self._starts[users + 1]
        indptr = np.concatenate([[0], np.cumsum(stops - starts)])
        indices = np.empty(indptr[-1], np.int32)
        # Users with consecutive numbers lie together in the file, so one read fetches all of them
        firsts = np.flatnonzero(np.diff(users, prepend=-2) != 1)
        for first, last in pairwise([*firsts, len(users)]):
            mine = indices[indptr[first] : indptr[last]]
            mine[:] = np.frombuffer(os.pread(self._file.fileno(), mine.nbytes, 4 * starts[first]), np.int32)
        return sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(users), self._items))


class SharedRows:
    """The same rows for a shared dataset: they are looked up in the node's copy. The users asked for must ascend."""

    def __init__(self, dataset: Dataset, cuts: Sequence[ShardSlice]) -> None:
        tables = [dataset.table(cut, ["held_out", "train"]) for cut in cuts]
        self._items = dataset.num_items
        self._lists = [table["train"].chunk(0) for table in tables]  # there is one chunk; joining would copy it
        self._trained = [np.flatnonzero(~table["held_out"].to_numpy()) for table in tables]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._trained)

    def __getitem__(self, users: Int[np.ndarray, " users"]) -> sp.csr_array:
        if not self._lists:
            return sp.csr_array((0, self._items), dtype=np.float32)
        chosen = by_shard(users, [len(rows) for rows in self._trained])
        taken = [
            lists.take(pa.array(rows[mine]))
            for lists, rows, mine in zip(self._lists, self._trained, chosen, strict=True)
        ]
        return csr_of(pa.chunked_array(taken), self._items)
