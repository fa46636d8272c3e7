"""The files of the shuffle: rows are dealt out to buckets by user, and each bucket's histories are gathered.

`partition` turns a piece of the log into part files. `gather` turns one bucket's share of every part file into a
history file. Both write side by side in one work directory. Both are pure functions of their inputs, and both are
skipped if their file is already there and whole.

    rows-00007.arrow       one record batch a bucket, of one row: users list<id> (its users in this file),
                           user list<int32> (positions in `users`), item list<int32> (positions in
                           items-00007), value list<int64> (time or given part; only if the split needs it)
    items-00007.arrow      item: the distinct item ids of rows-00007
    codes-00007.arrow      code: the position of each of these in the vocabulary of the whole log
    histories-00003.arrow  user_id (sorted), item list<int32> (positions in the vocabulary, sorted),
                           value list<int64>
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infrec.pipeline.ingest.hashing import hash_ids
from infrec.pipeline.storage import Location


@dataclass(frozen=True)
class Bucket:
    """The histories of one bucket's users. Each has an item once. They are sorted by user and then by item."""

    user_ids: pa.Array
    """The ids of the users, sorted."""
    user: np.ndarray
    """int32 [n]: the user of each interaction, as a position in `user_ids`."""
    item: np.ndarray
    """int32 [n]: the item of each interaction, as a position in the vocabulary of all items of the log."""
    value: np.ndarray | None
    """int64 [n]: the latest time or the first given part of the interaction, if the split needs it."""
    duplicates: int
    """The number of rows that were dropped because their user and item had been seen."""

    def surviving(self, keep_item: np.ndarray, min_user_interactions: int) -> np.ndarray:
        """Return whether each interaction is with a kept item, by a user who has enough of these: bool [n]."""
        alive: np.ndarray = keep_item[self.item]
        enough = np.bincount(self.user[alive], minlength=len(self.user_ids)) >= min_user_interactions
        alive &= enough[self.user]
        return alive


def rows_file(work: Location, part: int) -> Location:
    return work / f"rows-{part:05d}.arrow"


def items_file(work: Location, part: int) -> Location:
    return work / f"items-{part:05d}.arrow"


def codes_file(work: Location, part: int) -> Location:
    return work / f"codes-{part:05d}.arrow"


def deal_out(table: pa.Table, buckets: int) -> tuple[pa.Table, pa.Array]:
    """Deal rows (columns user, item and perhaps value, no nulls) out to buckets by a hash of the user.

    Return the table of the rows file, with one row a bucket, and the distinct items of the rows.
    """
    user, users = encode(table["user"])
    item, items = encode(table["item"])
    bucket_of_user = (hash_ids(users) % np.uint64(buckets)).astype(np.uint16 if buckets <= 1 << 16 else np.uint32)
    users_by_bucket = np.argsort(bucket_of_user, kind="stable")  # a radix sort on 16 bits
    users_before = _starts(bucket_of_user, buckets)
    position = np.empty(len(users), dtype=np.int32)
    position[users_by_bucket] = np.arange(len(users), dtype=np.int32)
    position -= users_before[:-1].astype(np.int32)[bucket_of_user]

    bucket = bucket_of_user[user]
    by_bucket = np.argsort(bucket, kind="stable")
    rows_before = _starts(bucket, buckets)
    columns = {
        "users": _lists(users_before, users.take(pa.array(users_by_bucket))),
        "user": _lists(rows_before, pa.array(position[user][by_bucket])),
        "item": _lists(rows_before, pa.array(item[by_bucket])),
    }
    if "value" in table.column_names:
        columns["value"] = _lists(rows_before, pa.array(table["value"].to_numpy()[by_bucket]))
    return pa.table(columns), items


def gather(bucket: int, work: Location, parts: int, *, keep_last: bool) -> Bucket:
    """Gather one bucket's rows from all part files, or read its history file if that is there and whole.

    If rows have the same user and item, the last value stays under `keep_last`, else the first.
    """
    file = work / f"histories-{bucket:05d}.arrow"
    stored = read_arrow(file)
    if stored is None:
        gathered = _gather(bucket, work, parts, keep_last)
        write_arrow(file, [_to_batch(gathered)], {"duplicates": gathered.duplicates})
        return gathered
    table = stored.read_all()
    lengths = pc.list_value_length(table["item"]).to_numpy()
    return Bucket(
        user_ids=table["user_id"].combine_chunks(),
        user=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        item=pc.list_flatten(table["item"]).to_numpy(),
        value=pc.list_flatten(table["value"]).to_numpy() if "value" in table.column_names else None,
        duplicates=notes(stored)["duplicates"],
    )


def encode(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Return int32 codes and the distinct values of a column without nulls. Some row uses each value."""
    if len(column) == 0:
        type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        return np.empty(0, dtype=np.int32), pa.array([], type_)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    encoded = column.unify_dictionaries().combine_chunks()
    codes, values = encoded.indices.to_numpy(), encoded.dictionary
    used = np.zeros(len(values), dtype=bool)
    used[codes] = True
    if used.all():
        return codes, values
    return (np.cumsum(used, dtype=np.int32) - np.int32(1))[codes], values.filter(pa.array(used))


def write_arrow(location: Location, batches: Sequence[pa.RecordBatch], note: Mapping[str, Any]) -> None:
    """Write record batches of one schema, with a JSON note, as an Arrow file. It is written whole or not at all."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batches[0].schema.with_metadata({"note": json.dumps(note)})) as writer:
        for batch in batches:
            writer.write_batch(batch)
    location.write(sink.getvalue())


def read_arrow(location: Location) -> pa.ipc.RecordBatchFileReader | None:
    """Open an Arrow file, or return None if there is no whole one.

    Batches are read, not mapped. If a process touched a page of each of a thousand mapped files, all of them would
    count as its memory.
    """
    if not location.exists():
        return None
    try:
        return pa.ipc.open_file(location.filesystem.open_input_file(location.path))
    except (pa.ArrowException, OSError):  # the footer comes last: a file that was cut short has none
        return None


def notes(reader: pa.ipc.RecordBatchFileReader) -> dict[str, Any]:
    """Return the note that `write_arrow` wrote."""
    found: dict[str, Any] = json.loads(reader.schema.metadata[b"note"])
    return found


def _gather(bucket: int, work: Location, parts: int, keep_last: bool) -> Bucket:
    shares, items = [], []
    for part in range(parts):
        reader = read_arrow(rows_file(work, part))
        assert reader is not None
        shares.append(reader.get_batch(bucket))
        codes = pa.ipc.open_file(codes_file(work, part).read())  # mapped: few entries of a large file are looked up
        items.append(codes.get_batch(0)["code"].to_numpy()[shares[-1]["item"].values.to_numpy()])
    code, distinct = encode(pa.chunked_array([share["users"].values for share in shares]))
    by_id = pc.sort_indices(distinct).to_numpy()
    rank = np.empty(len(distinct), dtype=np.int64)
    rank[by_id] = np.arange(len(distinct))
    user_of_code = rank[code]

    first_code = np.cumsum([0, *(len(share["users"].values) for share in shares)])
    user = np.concatenate(
        [
            user_of_code[share["user"].values.to_numpy() + first]
            for first, share in zip(first_code, shares, strict=False)
        ]
    )
    key = user << 32 | np.concatenate(items)
    value = None
    if "value" in shares[0].schema.names:
        value = np.concatenate([share["value"].values.to_numpy() for share in shares])
        order = np.argsort(key)
        key, value = key[order], value[order]
    else:
        key.sort()
    first_of_key = np.flatnonzero(np.diff(key, prepend=-1))
    if value is not None and len(value):
        value = (np.maximum if keep_last else np.minimum).reduceat(value, first_of_key)
    unique = key[first_of_key]
    return Bucket(
        user_ids=distinct.take(pa.array(by_id)),
        user=(unique >> 32).astype(np.int32),
        item=unique.astype(np.int32),  # the lower half of a key
        value=value,
        duplicates=len(key) - len(unique),
    )


def _to_batch(bucket: Bucket) -> pa.RecordBatch:
    before = _starts(bucket.user, len(bucket.user_ids))
    columns = {"user_id": bucket.user_ids, "item": _lists(before, pa.array(bucket.item))}
    if bucket.value is not None:
        columns["value"] = _lists(before, pa.array(bucket.value))
    return pa.record_batch(columns)


def _starts(group: np.ndarray, groups: int) -> np.ndarray:
    """Return where each group begins once the rows are sorted by group: int64 [groups + 1]."""
    return np.concatenate([[0], np.cumsum(np.bincount(group, minlength=groups))])


def _lists(starts: np.ndarray, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)
