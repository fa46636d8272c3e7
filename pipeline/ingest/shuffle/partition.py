"""The first pass over the log: read and filter each piece, deal its rows out to buckets, then number its items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infrec.pipeline.cluster import Report, TaskMap, map_tasks
from infrec.pipeline.ingest.config import IngestConfig
from infrec.pipeline.ingest.reading.logs import Column, OnBadFile, Role
from infrec.pipeline.ingest.reading.pieces import Piece, read
from infrec.pipeline.ingest.reading.timestamps import parse_time, sortable
from infrec.pipeline.ingest.shuffle.buckets import (
    codes_file,
    deal_out,
    encode,
    items_file,
    notes,
    read_arrow,
    rows_file,
    write_arrow,
)
from infrec.pipeline.ingest.splits import PART_NAMES
from infrec.pipeline.storage import Location

_PARTS_AT_ONCE = 64  # the driver holds the items of so many part files beside the vocabulary


class Dropped(StrEnum):
    """The reasons why rows of the log are not in the dataset. A row counts under the first reason that applies."""

    UNREADABLE = "in damaged pages"
    NO_USER = "without user"
    NO_ITEM = "without item"
    BAD_RATING = "rating missing or not finite"
    BELOW_THRESHOLD = "rating below threshold"
    NO_TIME = "without timestamp"
    TOO_EARLY = "before --since"
    TOO_LATE = "at or after --until"
    OTHER_SPLIT = "split neither train, validation nor test"
    DUPLICATE = "duplicates"
    UNKNOWN_ITEM = "of unknown items"
    FEW_INTERACTIONS = "users below minimum"
    CORE = "outside k-core"
    NOT_TRAINED = "users without train interactions"


@dataclass(frozen=True)
class Selection:
    """The rules by which rows of the log are kept, and whether their times are kept, too."""

    threshold: float | None
    since: int | None
    """The first time that is kept (as `timestamps.sortable`). None: no time is too early."""
    until: int | None
    """The first time that is no longer kept. None: no time is too late."""
    with_time: bool

    @classmethod
    def of(cls, config: IngestConfig, columns: Mapping[Role, Column]) -> Self:
        def time(text: str | None, setting: str) -> int | None:
            return None if text is None else parse_time(text, columns[Role.TIMESTAMP].type, setting)

        since, until = time(config.since, "since"), time(config.until, "until")
        return cls(config.threshold, since, until, config.split.needs_timestamp)


@dataclass(frozen=True)
class Partitioning:
    """The arguments that the partition of every piece shares."""

    columns: Mapping[Role, Column]
    selection: Selection
    buckets: int
    piece_rows: int
    on_bad_file: OnBadFile
    work: Location

    @classmethod
    def of(cls, config: IngestConfig, columns: Mapping[Role, Column], buckets: int, work: Location) -> Self:
        selection = Selection.of(config, columns)
        return cls(columns, selection, buckets, config.piece_rows, config.on_bad_file, work)


def partition(piece: Piece, how: Partitioning) -> Counter[str]:
    """Write the piece's part files, unless they are there and whole. Return the number of dropped rows by reason."""
    parts = range(piece.first_part, piece.first_part + piece.parts)
    stored = [
        reader
        for part in parts
        if read_arrow(items_file(how.work, part)) and (reader := read_arrow(rows_file(how.work, part)))
    ]
    if len(stored) == piece.parts:
        return sum((Counter(notes(reader)) for reader in stored), Counter())

    total: Counter[str] = Counter()
    tables = read(piece, how.columns, piece_rows=how.piece_rows, on_bad_file=how.on_bad_file)
    expected = piece.rows
    for part, table in zip(parts, tables, strict=True):
        kept, dropped = select(table, how.selection)
        dropped[Dropped.UNREADABLE] = min(expected, how.piece_rows) - len(table)
        expected -= how.piece_rows
        rows, items = deal_out(kept, how.buckets)
        write_arrow(items_file(how.work, part), [pa.record_batch({"item": items})], {})
        write_arrow(rows_file(how.work, part), rows.to_batches(max_chunksize=1), dropped)
        total += dropped
    return total


def select(table: pa.Table, selection: Selection) -> tuple[pa.Table, Counter[str]]:
    """Return the rows to keep, and the number of dropped rows by reason.

    The rows to keep have columns user and item. A column value has the given part if `table` has a split column, else
    the time if that is asked for. A rating that is null, NaN or infinite marks a damaged row, whether or not there is a
    threshold.
    """
    alive = np.ones(len(table), dtype=bool)
    dropped: Counter[str] = Counter()

    def drop(reason: Dropped, bad: np.ndarray) -> None:
        dropped[reason] = int(np.count_nonzero(alive & bad))
        np.logical_and(alive, ~bad, out=alive)

    drop(Dropped.NO_USER, _is_null(table[Role.USER]))
    drop(Dropped.NO_ITEM, _is_null(table[Role.ITEM]))
    value = None
    if Role.RATING in table.column_names:
        rating = pc.fill_null(table[Role.RATING], np.nan).to_numpy()
        drop(Dropped.BAD_RATING, ~np.isfinite(rating))
        if selection.threshold is not None:
            drop(Dropped.BELOW_THRESHOLD, rating < selection.threshold)
    if Role.TIMESTAMP in table.column_names:
        time = table[Role.TIMESTAMP]
        floats = pa.types.is_floating(time.type)
        drop(Dropped.NO_TIME, ~np.isfinite(pc.fill_null(time, np.nan).to_numpy()) if floats else _is_null(time))
        when = sortable(time)
        if selection.since is not None:
            drop(Dropped.TOO_EARLY, when < selection.since)
        if selection.until is not None:
            drop(Dropped.TOO_LATE, when >= selection.until)
        value = when if selection.with_time else None
    if Role.SPLIT in table.column_names:
        value = _given_part(table[Role.SPLIT])
        drop(Dropped.OTHER_SPLIT, value < 0)

    kept = table.select([Role.USER, Role.ITEM])
    if value is not None:
        kept = kept.append_column("value", pa.array(value))
    return kept if alive.all() else kept.filter(pa.array(alive)), dropped


def number_items(work: Location, parts: int, report: Report, run: TaskMap = map_tasks) -> pa.Array:
    """Return the sorted vocabulary of all items, and write the positions of each part file's items in it."""
    distinct = _items(work, 0)
    for first in range(0, parts, _PARTS_AT_ONCE):
        some = [_items(work, part) for part in range(first, min(first + _PARTS_AT_ONCE, parts))]
        distinct = pa.chunked_array([distinct, *some]).unique()
    vocabulary = distinct.take(pc.sort_indices(distinct))
    for done, _ in enumerate(run(_number_part, range(parts), work, vocabulary), start=1):
        report("number items", done, parts)
    return vocabulary


def _number_part(part: int, work: Location, vocabulary: pa.Array) -> None:
    """Write the vocabulary positions of a part file's items, unless they are there and whole: the body of a task."""
    if read_arrow(codes_file(work, part)) is None:
        codes = pc.index_in(_items(work, part), vocabulary)
        write_arrow(codes_file(work, part), [pa.record_batch({"code": codes})], {})


def _items(work: Location, part: int) -> pa.Array:
    reader = read_arrow(items_file(work, part))
    assert reader is not None
    return reader.get_batch(0)["item"]


def _is_null(column: pa.ChunkedArray) -> np.ndarray:
    """Return whether each entry is null: bool [n]. Entries that stand for a null value of a dictionary are, too."""
    if pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks):
        column = column.cast(column.type.value_type)
    if column.null_count == 0:
        return np.zeros(len(column), dtype=bool)
    nulls: np.ndarray = column.is_null().to_numpy()
    return nulls


def _given_part(column: pa.ChunkedArray) -> np.ndarray:
    """Return the part that each entry of a split column (dictionary-encoded strings) names: int64 [n].

    Any other value and null give −1.
    """
    if len(column) == 0:
        return np.empty(0, dtype=np.int64)
    codes, values = encode(column.cast(pa.string()).fill_null("").dictionary_encode())
    part_of_value = [PART_NAMES.get(value.strip().lower(), -1) for value in values.to_pylist()]
    part: np.ndarray = np.array(part_of_value, dtype=np.int64)[codes]
    return part
