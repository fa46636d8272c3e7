"""Ingest as a whole: against a plain Python one, on the real logs, on any number of CPUs, and after interruptions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.pipeline.ingest import IngestConfig, OnBadFile, Split, ingest
from infrec.pipeline.ingest.shuffle.partition import Dropped
from infrec.pipeline.storage import ArtefactWriter
from tests.naive_ingest import Row, as_naive, naive_ingest, write_log

pytestmark = pytest.mark.usefixtures("cluster")
ROOT = Path(__file__).parents[1]
SMALL = {"piece_rows": 700, "bucket_rows": 900}  # several pieces, parts and buckets for a log of 3,000 rows


def dirty_rows(seed: int, id_of: Callable[[int], Any]) -> list[Row]:
    random = np.random.default_rng(seed)
    splits = ["train", "train", "train", "val", "validation", "test", "dropped", None]

    def one() -> Row:
        return {
            "user_id": None if random.random() < 0.02 else id_of(int(random.geometric(0.02))),
            "item_id": None if random.random() < 0.02 else id_of(int(random.geometric(0.03)) - 30),
            "rating": random.choice([1.0, 2.0, 3.0, 4.0, 5.0, 5.0, np.nan, np.inf]),
            "timestamp": None if random.random() < 0.02 else int(random.integers(0, 300)),
            "split": splits[random.integers(len(splits))],
        }

    return [one() for _ in range(3000)]


def test_every_split(tmp_path: Path, subtests: pytest.Subtests) -> None:
    rows = dirty_rows(0, lambda number: number)
    log = write_log(tmp_path / "log", rows, pa.int64())
    for split in Split:
        with subtests.test(split=split):
            config = IngestConfig(split=split, seed=3, **SMALL)
            dataset = ingest([str(log)], str(tmp_path / split), config)
            assert as_naive(dataset) == naive_ingest(rows, config)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 4.0},
        {"min_user_interactions": 8},
        {"k_core": 6, "split": Split.LEAVE_LAST},
        {"since": "50", "until": "250"},
        {"since": "100", "split": Split.LEAVE_LAST},
        {"until": "200", "split": Split.COLUMN},
        {"k_core": 4, "min_user_interactions": 12, "threshold": 2.0, "split": Split.TEMPORAL},
    ],
    ids=str,
)
def test_every_filter(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = dirty_rows(1, lambda number: f"id {number}")
    log = write_log(tmp_path / "log", rows, pa.string())
    config = IngestConfig(**options, **SMALL)
    dataset = ingest([str(log)], str(tmp_path / "dataset"), config)
    assert as_naive(dataset) == naive_ingest(rows, config)
    train_counts = dataset.histories().train.sum(axis=0)
    assert dataset.items()["train_count"].to_pylist() == train_counts.tolist()


@pytest.mark.parametrize(
    ("id_type", "comes_out_as"),
    [
        (pa.int8(), pa.int8()),
        (pa.uint64(), pa.uint64()),
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.dictionary(pa.int16(), pa.string()), pa.string()),
    ],
    ids=str,
)
def test_every_id_type(tmp_path: Path, id_type: pa.DataType, comes_out_as: pa.DataType) -> None:
    def id_of(number: int) -> Any:
        return abs(number) % 127 if pa.types.is_integer(id_type) else f"ü{number}"

    rows = dirty_rows(2, id_of)
    log = write_log(tmp_path / "log", rows, id_type)
    config = IngestConfig(**SMALL)
    dataset = ingest([str(log)], str(tmp_path / "dataset"), config)
    assert as_naive(dataset) == naive_ingest(rows, config)
    assert dataset.items()["item_id"].type == comes_out_as
    assert dataset.shard(0).user_ids.type == comes_out_as


def test_one_user_one_item_one_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "item_id": [7]}), tmp_path / "log.parquet")
    for split in (Split.RANDOM, Split.USERS):
        dataset = ingest(
            [str(tmp_path / "log.parquet")], str(tmp_path / "out"), IngestConfig(split=split), overwrite=True
        )
        (history,) = as_naive(dataset).histories.values()
        assert history[1:] == ([7], [], [])


def test_the_last_of_equal_interactions_counts(tmp_path: Path) -> None:
    """An item that was met first and again last is the last one."""
    table = pa.table({"user_id": [1] * 5, "item_id": [10, 20, 30, 40, 10], "timestamp": [1, 2, 3, 4, 9]})
    pq.write_table(table, tmp_path / "log.parquet")
    dataset = ingest([str(tmp_path / "log.parquet")], str(tmp_path / "out"), IngestConfig(split=Split.LEAVE_LAST))
    assert as_naive(dataset).histories == {1: (False, [20, 30], [40], [10])}


@pytest.mark.parametrize(
    ("column", "cuts"),
    [
        (pa.array([0.5, 1.5, 2.25, 9.0]), ("2", "9")),
        (
            pa.array([1, 2, 3, 4], pa.timestamp("us")),
            ("1970-01-01T00:00:00.000003", "1970-01-01T00:00:00.000004"),
        ),
        (pa.array([1, 2, 3, 4], pa.date32()), ("1970-01-04", "1970-01-05")),
        (pa.array([-5, -4, 0, 1], pa.int16()), ("0", "1")),
    ],
    ids=["floats", "timestamps", "dates", "integers"],
)
def test_explicit_cuts_in_time(tmp_path: Path, column: pa.Array, cuts: tuple[str, str]) -> None:
    pq.write_table(
        pa.table({"user_id": [1] * 4, "item_id": [1, 2, 3, 4], "timestamp": column}), tmp_path / "log.parquet"
    )
    config = IngestConfig(split=Split.TEMPORAL, validation_from=cuts[0], test_from=cuts[1])
    dataset = ingest([str(tmp_path / "log.parquet")], str(tmp_path / "out"), config)
    assert as_naive(dataset).histories == {1: (False, [1, 2], [3], [4])}


def test_a_grown_log_keeps_the_indices_of_its_items(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1, 1, 2], "item_id": ["m", "c", "x"]}), tmp_path / "1.parquet")
    first = ingest([str(tmp_path)], str(tmp_path / "first"), IngestConfig())
    pq.write_table(pa.table({"user_id": [3, 3, 2], "item_id": ["a", "m", "z"]}), tmp_path / "1.parquet")
    config = IngestConfig(items_from=str(tmp_path / "first"))
    second = ingest([str(tmp_path / "1.parquet")], str(tmp_path / "second"), config)
    assert first.items()["item_id"].to_pylist() == ["c", "m", "x"]
    assert second.items()["item_id"].to_pylist() == ["c", "m", "x", "a", "z"]
    assert as_naive(second).histories[2] == (False, ["z"], [], [])
    assert second.items()["train_count"].to_pylist()[:3] == [0, second.items()["train_count"][1].as_py(), 0]


def test_known_items_only(tmp_path: Path) -> None:
    """Integers of another width are the same items; rows count as too few of a user only where their item is known."""
    pq.write_table(pa.table({"user_id": [1, 1], "item_id": pa.array([30, 10], pa.int32())}), tmp_path / "old.parquet")
    first = ingest([str(tmp_path / "old.parquet")], str(tmp_path / "first"), IngestConfig())
    rows = [(7, 30), (7, 10), (7, 20), (7, 30), (8, 10), (8, 99), (9, 99)]
    users, items = zip(*rows, strict=True)
    pq.write_table(pa.table({"user_id": users, "item_id": items}), tmp_path / "new.parquet")
    config = IngestConfig(items_from=str(tmp_path / "first"), known_items_only=True, min_user_interactions=2)
    second = ingest([str(tmp_path / "new.parquet")], str(tmp_path / "second"), config)
    assert second.items()["item_id"].equals(first.items()["item_id"])
    naive, counts = as_naive(second), second.manifest.counts
    assert naive.dropped == {Dropped.DUPLICATE: 1, Dropped.UNKNOWN_ITEM: 3, Dropped.FEW_INTERACTIONS: 1}
    assert {
        user: sorted(train + validation + test) for user, (_, train, validation, test) in naive.histories.items()
    } == {7: [10, 30]}
    assert (counts["users"], counts["users_left_out"]) == (1, 2)


@pytest.mark.parametrize(
    ("log", "users", "items", "parts"),
    [
        ("ml-1m", 6040, 3706, (791_718, 99_692, 108_799)),
        # 472 of its 12,689 rows repeat a user and item, some in another part: train wins, then validation
        ("magazine", 3092, 1305, (5934, 425, 5858)),
    ],
)
def test_real_logs_by_their_split_column(
    tmp_path: Path, shared_data: Path, log: str, users: int, items: int, parts: tuple[int, int, int]
) -> None:
    dataset = ingest([str(shared_data / f"{log}.parquet")], str(tmp_path / log), IngestConfig(split=Split.COLUMN))
    assert (dataset.num_users, dataset.num_items) == (users, items)
    counts = dataset.manifest.counts
    assert (counts["train"], counts["validation"], counts["test"]) == parts
    assert sum(parts) + sum(counts["dropped"].values()) == counts["rows"]


# One run in a process of its own; the configuration must be `CONFIG`.
CONFIG = IngestConfig(k_core=3, **SMALL)


def test_a_fingerprint_is_of_content(tmp_path: Path) -> None:
    """Neither the place of a log nor the times of its files are in a dataset, and not those of a file passed over."""
    log, elsewhere = write_log(tmp_path / "log", dirty_rows(3, str), pa.string()), tmp_path / "elsewhere"
    (log / "broken.parquet").write_bytes(b"PAR1")
    config = IngestConfig(on_bad_file=OnBadFile.SKIP, **SMALL)
    ingest([str(log)], str(tmp_path / "one"), config)
    shutil.copytree(log, elsewhere)
    for file in elsewhere.iterdir():
        os.utime(file, (1, 1))
    ingest([str(elsewhere)], str(tmp_path / "two"), config)
    one, two = ((tmp_path / name / "manifest.json").read_text() for name in ("one", "two"))
    assert one == two and str(tmp_path) not in one
    assert json.loads(one)["counts"]["bad_files"] == ["broken.parquet"]
    (elsewhere / "broken.parquet").write_bytes(b"PAR2")
    other = ingest([str(elsewhere)], str(tmp_path / "three"), config)
    assert other.manifest.inputs["log"] != json.loads(one)["inputs"]["log"]


def test_dead_workers_are_replaced(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", dirty_rows(9, str), pa.string())
    undisturbed = ingest([str(log)], str(tmp_path / "undisturbed"), CONFIG)
    killed: list[str] = []

    def kill_the_workers_of_each_pass(phase: str, done: int, total: int) -> None:
        if done and phase in ("read rows", "gather users", "write shards") and phase not in killed:
            killed.append(phase)
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # an idle worker ends when it likes
                    if process.name().startswith("ray::") and not process.name().endswith("Agent"):
                        process.kill()

    disturbed = ingest([str(log)], str(tmp_path / "out"), CONFIG, report=kill_the_workers_of_each_pass)
    assert len(killed) == 3
    assert disturbed.manifest.fingerprint() == undisturbed.manifest.fingerprint()


@pytest.mark.parametrize("phase", ["gather users", "write shards"])
def test_a_part_cut_short_between_runs_is_made_again(tmp_path: Path, phase: str) -> None:
    log = write_log(tmp_path / "log", dirty_rows(7, str), pa.string())
    undisturbed = ingest([str(log)], str(tmp_path / "undisturbed"), CONFIG)
    out = tmp_path / "out"

    reports: list[str] = []

    def stop(current: str, done: int, total: int) -> None:
        reports.append(current)
        if reports.count(phase) == 3:  # the first one says that nothing is done yet
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest([str(log)], str(out), CONFIG, report=stop)
    staging = tmp_path / ".out.partial"
    cut_short = [staging / "_work" / "rows-00001.arrow", staging / "_work" / "items-00002.arrow"]
    cut_short += sorted(staging.glob("_work/histories-*"))[:1] + sorted(staging.glob("users-*"))[:1]
    for file in cut_short:
        file.write_bytes(file.read_bytes()[:-100])
    resumed = ingest([str(log)], str(out), CONFIG)
    assert resumed.manifest.fingerprint() == undisturbed.manifest.fingerprint()


def test_another_configuration_starts_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = write_log(tmp_path / "log", dirty_rows(8, str), pa.string())

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ArtefactWriter, "publish", fail)
        ingest([str(log)], str(tmp_path / "out"), IngestConfig(threshold=5.0, **SMALL))
    dataset = ingest([str(log)], str(tmp_path / "out"), IngestConfig(threshold=2.0, **SMALL))
    assert as_naive(dataset) == naive_ingest(dirty_rows(8, str), IngestConfig(threshold=2.0))
