"""What a dataset gained since its shards were written: a file of additions each time that its log had grown.

    additions-00000.parquet  a row group for every shard, with a row for every user who gained something:
    …                        row (int32: the user's in the shard), user_id, train, validation, test (list<int32>,
                             sorted: the new items alone)

Users who are new to a shard have the rows after its last one, in the order in which the files name them. So no row
number ever changes, and the files that there were are taken over as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Int64


def additions_name(number: int) -> str:
    return f"additions-{number:05d}.parquet"


def with_newcomers(shard: pa.Table, additions: Sequence[pa.Table]) -> pa.Table:
    """The shard's users and those who came later, still without what was added to anyone's history."""
    tables = [shard]
    users = len(shard)
    for addition in additions:
        new = addition["row"].to_numpy() >= users
        newcomers = addition.filter(pa.array(new))
        tables.append(pa.table([_empty(newcomers, field) for field in shard.schema], schema=shard.schema))
        users += len(newcomers)
    return pa.concat_tables(tables)


def with_interactions(
    users: pa.Table, additions: Sequence[pa.Table], rows: Int[np.ndarray, " users"] | None = None
) -> pa.Table:
    """These users of a shard, or all of them, with the items that were added to their histories."""
    for number, field in enumerate(users.schema):
        if not pa.types.is_list(field.type):
            continue
        keys = [keys_of(users[field.name])]
        for addition in additions:
            row = addition["row"].to_numpy()
            place = row if rows is None else _places(row, rows)
            keys.append(keys_of(addition[field.name], place))
        merged = np.concatenate(keys)
        merged = merged[merged >= 0]
        merged.sort(kind="stable")  # merges runs that are sorted: linear
        users = users.set_column(number, field, lists_of_keys(merged, len(users)).cast(field.type))
    return users


def keys_of(lists: pa.ChunkedArray, rows: Int[np.ndarray, " rows"] | None = None) -> Int64[np.ndarray, " items"]:
    """Row and item of every entry in one number, in order: row · 2³² + item. `rows`: their numbers, if not 0, 1, …"""
    lengths = pc.list_value_length(lists).to_numpy()
    rows = np.arange(len(lengths)) if rows is None else rows
    keys: np.ndarray = np.repeat(rows.astype(np.int64) << 32, lengths) + pc.list_flatten(lists).to_numpy()
    return keys


def lists_of_keys(keys: Int64[np.ndarray, " items"], rows: int) -> pa.ListArray:
    """The inverse of `keys_of` for sorted keys: list<int32> [rows]."""
    starts = np.searchsorted(keys, np.arange(rows + 1, dtype=np.int64) << 32)
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(keys.astype(np.int32)))  # the lower half


def _places(row: Int[np.ndarray, " added"], rows: Int[np.ndarray, " users"]) -> Int64[np.ndarray, " added"]:
    """Where each of `row` is among `rows`, −1 for those that are not."""
    if len(rows) == 0:
        return np.full(len(row), -1)
    order = np.argsort(rows)
    place = order[np.minimum(np.searchsorted(rows[order], row), len(rows) - 1)]
    place[rows[place] != row] = -1
    return place


def _empty(newcomers: pa.Table, field: pa.Field) -> pa.Array:
    """A shard's column for users of whom only the id is known."""
    if field.name == "user_id":
        return newcomers["user_id"].combine_chunks()
    if field.type == pa.bool_():
        return pa.repeat(pa.scalar(False), len(newcomers))
    return lists_of_keys(np.empty(0, np.int64), len(newcomers)).cast(field.type)
