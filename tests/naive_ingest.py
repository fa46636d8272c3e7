"""A plain Python ingest, row by row, that the pipeline must agree with, and the logs that both read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infrec.pipeline.data import PARTS, Dataset
from infrec.pipeline.ingest import IngestConfig, Split
from infrec.pipeline.ingest.hashing import hash_ids
from infrec.pipeline.ingest.shuffle.partition import Dropped
from infrec.pipeline.ingest.splits import PART_NAMES, Interactions, assign

Row = dict[str, Any]
History = tuple[bool, list[Any], list[Any], list[Any]]


@dataclass
class NaiveDataset:
    """user id → (held out, train, validation, test), the lists of item ids sorted."""

    histories: dict[Any, History] = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def naive_ingest(rows: Sequence[Row], config: IngestConfig) -> NaiveDataset:
    result = NaiveDataset()
    seen: dict[tuple[Any, Any], int] = {}
    for row in rows:
        reason = _reason_to_drop(row, config)
        if reason:
            result.dropped[reason] += 1
            continue
        pair, value = (row["user_id"], row["item_id"]), _value(row, config)
        if pair in seen:
            result.dropped[Dropped.DUPLICATE] += 1
            value = max(seen[pair], value) if config.split.needs_timestamp else min(seen[pair], value)
        seen[pair] = value
    before = len(seen)
    degree = Counter(user for user, _ in seen)
    enough = {pair: value for pair, value in seen.items() if degree[pair[0]] >= config.min_user_interactions}
    result.dropped[Dropped.FEW_INTERACTIONS] = before - len(enough)
    kept = _core(enough, config) if config.k_core > 1 else enough
    result.dropped[Dropped.CORE] = len(enough) - len(kept)
    result.items = sorted({item for _, item in kept})
    _split(kept, config, result)
    result.dropped = Counter({reason: count for reason, count in result.dropped.items() if count})
    return result


def as_naive(dataset: Dataset, *, sorted_users: bool = True) -> NaiveDataset:
    """Return a dataset of the pipeline in the same form."""
    ids = dataset.items()["item_id"].to_pylist()
    result = NaiveDataset(items=ids, dropped=Counter(dataset.manifest.counts.get("dropped", {})))
    for shard in (dataset.shard(index) for index in range(dataset.num_shards)):
        users = shard.user_ids.to_pylist()
        assert not sorted_users or users == sorted(users)
        for row, user in enumerate(users):
            lists = [getattr(shard, part)[[row]].indices for part in PARTS]
            assert all((np.diff(indices) > 0).all() for indices in lists)
            names = [sorted(ids[index] for index in indices) for indices in lists]
            assert user not in result.histories
            result.histories[user] = (bool(shard.held_out[row]), names[0], names[1], names[2])
    return result


def _reason_to_drop(row: Row, config: IngestConfig) -> Dropped | None:
    if row["user_id"] is None:
        return Dropped.NO_USER
    if row["item_id"] is None:
        return Dropped.NO_ITEM
    if row["rating"] is None or not math.isfinite(row["rating"]):
        return Dropped.BAD_RATING
    if config.threshold is not None and row["rating"] < config.threshold:
        return Dropped.BELOW_THRESHOLD
    if (config.split.needs_timestamp or config.since or config.until) and row["timestamp"] is None:
        return Dropped.NO_TIME
    if config.since is not None and row["timestamp"] < int(config.since):
        return Dropped.TOO_EARLY
    if config.until is not None and row["timestamp"] >= int(config.until):
        return Dropped.TOO_LATE
    if config.split == Split.COLUMN and row["split"] not in PART_NAMES:
        return Dropped.OTHER_SPLIT
    return None


def _value(row: Row, config: IngestConfig) -> int:
    if config.split == Split.COLUMN:
        return PART_NAMES[row["split"]]
    return row["timestamp"] if config.split.needs_timestamp else 0


def _core(pairs: dict[tuple[Any, Any], int], config: IngestConfig) -> dict[tuple[Any, Any], int]:
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        minimum = max(config.k_core, config.min_user_interactions)
        left = {
            (user, item): value
            for (user, item), value in pairs.items()
            if users[user] >= minimum and items[item] >= config.k_core
        }
        if len(left) == len(pairs):
            return left
        pairs = left


def _split(kept: dict[tuple[Any, Any], int], config: IngestConfig, result: NaiveDataset) -> None:
    times = sorted(kept.values())
    cuts = (times[int(0.8 * len(times))], times[int(0.9 * len(times))]) if times else (0, 0)
    histories: dict[Any, list[Any]] = {}
    for user, item in sorted(kept):
        histories.setdefault(user, []).append(item)
    for user, items in histories.items():
        rows = Interactions(
            user=np.zeros(len(items), dtype=int),
            item_hash=hash_ids(pa.array(items)),
            user_hash=hash_ids(pa.array([user])),
            value=np.array([kept[user, item] for item in items]),
        )
        part, held_out = assign(config.split, rows, seed=config.seed, cuts=cuts)
        lists = [[item for item, p in zip(items, part, strict=True) if p == number] for number in range(3)]
        if lists[0] or config.split == Split.STABLE:
            result.histories[user] = (bool(held_out[0]), lists[0], lists[1], lists[2])
        else:
            result.dropped[Dropped.NOT_TRAINED] += len(items)


def write_log(folder: Path, rows: list[Row], id_type: pa.DataType, *, files: int = 3) -> Path:
    """Write the rows into files of several row groups, and return their folder."""
    folder.mkdir()
    schema = pa.schema(
        {
            "user_id": id_type,
            "item_id": id_type,
            "rating": pa.float32(),
            "timestamp": pa.int64(),
            "split": pa.string(),
        }
    )
    for number in range(files):
        table = pa.Table.from_pylist(rows[number::files], schema)
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=400 if number else 5000)
    return folder
