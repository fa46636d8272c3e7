"""Additions: interactions that a shard's users gained after it was written. Every reader of a shard merges them in.

    additions-00003.parquet  row (int32: the user's row in the shard), user_id (null if the shard has the user), train,
                             validation, test (list<int32>, sorted: only the added items); the file is sorted by row

Newcomers are users who came after the shard was written. They have the rows after the shard's last one. So no row
number ever changes, and a shard stays as it is while the dataset grows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Int64


def additions_name(shard: int) -> str:
    """Return the name of a shard's file of additions."""
    return f"additions-{shard:05d}.parquet"


def addition_of(newcomers: pa.Array, keys: Mapping[str, Int64[np.ndarray, " items"]]) -> pa.Table:
    """Return the table of a shard's additions: one row for each user with an added item.

    `newcomers` are the ids of all newcomers. `keys` maps each part (train, validation, test) to the sorted keys
    (`keys_of`) of its added items.
    """
    rows = np.flatnonzero(np.bincount(np.concatenate([each >> 32 for each in keys.values()])))
    user_ids = pa.concat_arrays([pa.nulls(len(rows) - len(newcomers), newcomers.type), newcomers])
    lists = {part: lists_of_keys(each, rows) for part, each in keys.items()}
    return pa.table({"row": pa.array(rows, pa.int32()), "user_id": user_ids, **lists})


def with_newcomers(shard: pa.Table, addition: pa.Table) -> pa.Table:
    """Return the shard's users and the newcomers. Their histories still lack all added items."""
    first = int(np.searchsorted(addition["row"].to_numpy(), len(shard)))
    newcomers = addition[first:]
    columns = [_empty(newcomers, field) for field in shard.schema]
    return pa.concat_tables([shard, pa.table(columns, schema=shard.schema)])


def with_additions(shard: pa.Table, addition: pa.Table, rows: Int[np.ndarray, " users"] | None = None) -> pa.Table:
    """Return the users of a shard with all their items, added ones included.

    `rows` (ascending) selects users. None selects all of them.
    """
    users = with_newcomers(shard, addition)
    place = addition["row"].to_numpy()
    if rows is not None:
        users = users.take(pa.array(rows))
        addition = addition.filter(pa.array(np.isin(place, rows)))
        place = np.searchsorted(rows, addition["row"].to_numpy())
    for number, field in enumerate(users.schema):
        if pa.types.is_list(field.type):
            keys = merged(keys_of(users[field.name]), keys_of(addition[field.name], place))
            users = users.set_column(number, field, lists_of_keys(keys, np.arange(len(users))).cast(field.type))
    return users


def keys_of(lists: pa.ChunkedArray, rows: Int[np.ndarray, " rows"] | None = None) -> Int64[np.ndarray, " items"]:
    """Return one key, row · 2³² + item, for every entry of the lists, in order.

    `rows` gives the row number of each list. The default is 0, 1, ….
    """
    lengths = pc.list_value_length(lists).to_numpy()
    rows = np.arange(len(lengths)) if rows is None else rows
    keys: np.ndarray = np.repeat(rows.astype(np.int64) << 32, lengths)
    keys += pc.list_flatten(lists).to_numpy()
    return keys


def lists_of_keys(keys: Int64[np.ndarray, " items"], rows: Int64[np.ndarray, " rows"]) -> pa.ListArray:
    """Invert `keys_of`: return the items as list<int32>, one list for each of the (ascending) `rows`.

    The keys are sorted, and the row of each key is among `rows`.
    """
    starts = np.append(np.searchsorted(keys, rows << 32), len(keys))
    # The cast keeps the lower half of a key: the item
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(keys.astype(np.int32)))


def merged(left: Int64[np.ndarray, " left"], right: Int64[np.ndarray, " right"]) -> Int64[np.ndarray, " both"]:
    """Return the elements of two sorted arrays in one sorted array."""
    if len(right) == 0:
        return left
    both = np.concatenate([left, right])
    both.sort(kind="stable")  # a stable sort merges sorted runs in linear time
    return both


def _empty(newcomers: pa.Table, field: pa.Field) -> pa.Array:
    """Return a shard's column for users of whom only the id is known."""
    if field.name == "user_id":
        return newcomers["user_id"].combine_chunks()
    if field.type == pa.bool_():
        return pa.repeat(pa.scalar(False), len(newcomers))
    return lists_of_keys(np.empty(0, np.int64), np.arange(len(newcomers))).cast(field.type)
