"""Some users' train interactions in a file: memory holds where each user's begin, and the rows that are asked for."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
import scipy.sparse as sp
from jaxtyping import Int

from pipeline.dataset import Dataset, ShardSlice, training_lists


class TrainingRows:
    """The train rows of the training users in some slices of a dataset: `rows[users]` is CSR, binary float32.

    The file has no name: it is gone with the process. It is read, not mapped, so that its pages are not this
    process's memory.
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
        """Of each user, and after the last one."""

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, users: Int[np.ndarray, " users"]) -> sp.csr_array:
        starts, stops = self._starts[users], self._starts[users + 1]
        indptr = np.concatenate([[0], np.cumsum(stops - starts)])
        indices = np.empty(indptr[-1], np.int32)
        for row, start in enumerate(starts):
            mine = indices[indptr[row] : indptr[row + 1]]
            mine[:] = np.frombuffer(os.pread(self._file.fileno(), mine.nbytes, 4 * start), np.int32)
        return sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(users), self._items))
