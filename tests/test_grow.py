"""A dataset that grows night by night: what ingest of the whole log makes, at every reader, and after a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.pipeline.data import PARTS, Dataset
from infrec.pipeline.data.dataset import COLUMNS
from infrec.pipeline.ingest import IngestConfig, Split, grow, ingest
from infrec.pipeline.ingest.growth import grow as growing
from infrec.pipeline.ingest.growth.grow import Grown
from infrec.pipeline.ingest.shuffle.shards import USER_COUNTS
from infrec.pipeline.storage import MANIFEST, InputError
from tests.naive_ingest import NaiveDataset, Row, as_naive, naive_ingest, write_log
from tests.nodes import by_itself

pytestmark = pytest.mark.usefixtures("cluster")
CONFIG = IngestConfig(split=Split.STABLE, seed=2, threshold=2.0, until="250", piece_rows=700, bucket_rows=900)
ID_TYPES: dict[str, tuple[pa.DataType, Callable[[int], Any]]] = {
    "integers": (pa.int64(), lambda number: number),
    "strings": (pa.string(), lambda number: f"id {number}"),
}


def nights(seed: int, id_of: Callable[[int], Any], *, count: int = 4) -> list[list[Row]]:
    """A first log of 3,000 rows and smaller ones: each repeats some rows, and brings some new users and items."""
    random = np.random.default_rng(seed)
    seen: list[Row] = []
    logs: list[list[Row]] = []
    for night in range(count):
        rows: list[Row] = [
            {
                "user_id": None if random.random() < 0.02 else id_of(int(random.geometric(0.02)) + 5 * night),
                "item_id": None if random.random() < 0.02 else id_of(int(random.geometric(0.03)) - 30 + 3 * night),
                "rating": random.choice([1.0, 2.0, 3.0, 5.0, np.nan]),
                "timestamp": None if random.random() < 0.02 else int(random.integers(0, 300)),
                "split": None,
            }
            for _ in range(200 if night else 3000)
        ]
        if seen:
            rows += [seen[index] for index in random.integers(len(seen), size=50)]
        seen += rows
        logs.append(rows)
    return logs


def grown_by_night(folder: Path, logs: list[list[Row]], id_type: pa.DataType) -> list[Grown]:
    """A growth a night after the first."""
    paths = [write_log(folder / f"log-{night}", rows, id_type) for night, rows in enumerate(logs)]
    dataset = ingest([str(paths[0])], str(folder / "0"), CONFIG)
    found: list[Grown] = []
    for night, path in list(enumerate(paths))[1:]:
        previous = Dataset.open(str(folder / str(night - 1)))
        found.append(grow(previous, [str(path)], str(folder / str(night)), str(folder / f"fresh-{night}"), CONFIG))
    assert dataset.manifest == Dataset.open(str(folder / "0")).manifest
    return found


def by_id(dataset: Dataset) -> NaiveDataset:
    naive = as_naive(dataset, sorted_users=not dataset.has_additions)
    return NaiveDataset(naive.histories, sorted(naive.items), naive.dropped)


@pytest.fixture(scope="module")
def series(cluster: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[list[Row]], list[Grown]]:
    logs = nights(0, str)
    return logs, grown_by_night(tmp_path_factory.mktemp("series"), logs, pa.string())


@pytest.mark.parametrize("ids", ID_TYPES)
def test_every_night_it_is_what_the_whole_log_makes(tmp_path: Path, ids: str) -> None:
    id_type, id_of = ID_TYPES[ids]
    logs = nights(1, id_of)
    for night, grown in enumerate(grown_by_night(tmp_path, logs, id_type), start=1):
        so_far = [row for rows in logs[: night + 1] for row in rows]
        dataset = Dataset.open(str(tmp_path / str(night)))
        assert by_id(dataset) == naive_ingest(so_far, CONFIG)
        whole = ingest([str(tmp_path / f"log-{number}") for number in range(night + 1)], str(tmp_path / "w"), CONFIG,
                       overwrite=True)  # fmt: skip
        for name in ("rows", "items", *USER_COUNTS):
            assert dataset.manifest.counts[name] == whole.manifest.counts[name], name
        assert train_counts(dataset) == train_counts(whole)
        before = Dataset.open(str(tmp_path / str(night - 1)))
        known = before.items()["item_id"]
        assert dataset.items()["item_id"][: len(known)].equals(known)
        gained = {name: dataset.manifest.counts[name] - before.manifest.counts[name] for name in grown.added}
        assert grown.added == gained
        assert grown.rows == len(logs[night]) == sum(grown.dropped.values()) + sum(gained[part] for part in PARTS)


def train_counts(dataset: Dataset) -> dict[Any, int]:
    items = dataset.items()
    return dict(zip(items["item_id"].to_pylist(), items["train_count"].to_pylist(), strict=True))


def test_fresh_is_what_is_new_and_held_out(series: tuple[list[list[Row]], list[Grown]]) -> None:
    logs, growths = series
    for night, grown in enumerate(growths, start=1):
        before, now = (
            naive_ingest([row for rows in logs[:stop] for row in rows], CONFIG).histories for stop in (night, night + 1)
        )
        expected = {}
        for user, (_, train, validation, test) in now.items():
            old = before[user][3] if user in before else []
            if new := sorted(set(test) - set(old)):
                expected[user] = (False, train, validation, new)
        assert len(expected) > 3
        assert as_naive(grown.fresh, sorted_users=True).histories == expected
        assert grown.fresh.items().equals(grown.dataset.items())
        counts = grown.fresh.manifest.counts
        assert counts["users"] == len(expected)
        assert counts["test"] == sum(len(test) for *_, test in expected.values())
        assert counts["users_without_validation"] == sum(not validation for _, _, validation, _ in expected.values())


def test_what_there_was_is_not_written_again(series: tuple[list[list[Row]], list[Grown]]) -> None:
    _, growths = series
    first, last = growths[0].dataset, growths[-1].dataset
    shards = [name for name in last.manifest.files if name.startswith("users-")]
    assert len(shards) == first.num_shards == 4
    for name in shards:
        files = [Path((dataset.artefact.location / name).path).stat() for dataset in (first, last)]
        assert files[0].st_ino == files[1].st_ino


def test_every_reader_has_the_additions(series: tuple[list[list[Row]], list[Grown]]) -> None:
    dataset = series[1][-1].dataset
    everyone = dataset.histories()
    assert len(everyone) == dataset.num_users == sum(dataset.shard_sizes())
    for cuts in (dataset.slices(7), [cut for part in range(5) for cut in dataset.part(part, 5)]):
        table = pa.concat_tables(dataset.table(cut, list(COLUMNS)) for cut in cuts)
        assert table["user_id"].combine_chunks().equals(everyone.user_ids)
        lists = [row["train"] for row in table.to_pylist()]
        assert lists == [everyone.train[[row]].indices.tolist() for row in range(len(everyone))]
    np.testing.assert_array_equal(dataset.training_sizes(), np.diff(everyone.train.indptr))
    chosen = np.random.default_rng(0).permutation(dataset.num_users)[:20]
    assert (dataset.training_rows(chosen) != everyone.train[chosen]).nnz == 0
    assert (dataset.training_matrix() != everyone.train).nnz == 0
    np.testing.assert_array_equal(dataset.items()["train_count"].to_numpy(), everyone.train.toarray().sum(axis=0))


def test_shards_are_written_anew_when_additions_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "MOST_ADDED", 0.1)
    logs = nights(3, str, count=6)
    growths = grown_by_night(tmp_path, logs, pa.string())
    assert {grown.dataset.has_additions for grown in growths} == {True, False}
    for night, grown in enumerate(growths, start=1):
        so_far = [row for rows in logs[: night + 1] for row in rows]
        assert by_id(grown.dataset) == naive_ingest(so_far, CONFIG)
        files = grown.dataset.manifest.files
        assert any(name.startswith("additions-") for name in files) == grown.dataset.has_additions
        assert {path.name for path in Path(grown.dataset.artefact.location.path).iterdir()} == {MANIFEST, *files}


def test_shards_do_not_grow_without_bound(tmp_path: Path) -> None:
    """Each becomes several, with users still in the bucket of their hash."""
    logs = [nights(seed, str, count=1)[0] for seed in range(6)]
    paths = [write_log(tmp_path / f"log-{number}", rows, pa.string()) for number, rows in enumerate(logs)]
    first = ingest([str(paths[0])], str(tmp_path / "0"), CONFIG)
    later = [str(path) for path in paths[1:]]
    config = replace(CONFIG, bucket_rows=300)
    grown = grow(first, later, str(tmp_path / "1"), str(tmp_path / "fresh"), config).dataset
    assert grown.num_shards > first.num_shards
    assert grown.num_shards % first.num_shards == 0
    assert by_id(grown) == naive_ingest([row for rows in logs for row in rows], CONFIG)
    again = write_log(tmp_path / "again", logs[0], pa.string())
    grown = grow(grown, [str(again)], str(tmp_path / "2"), str(tmp_path / "fresh"), CONFIG)
    assert sum(grown.added.values()) == 0
    assert grown.dropped["duplicates"] > 1000
    assert len(grown.fresh.histories()) == 0


def test_the_same_bytes_from_threads_and_from_tasks(
    series: tuple[list[list[Row]], list[Grown]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "_SHARDS_HERE", 0)
    by_tasks = grown_by_night(tmp_path, series[0], pa.string())
    for here, there in zip(series[1], by_tasks, strict=True):
        assert files_of(here.dataset) == files_of(there.dataset)
        assert files_of(here.fresh) == files_of(there.fresh)


def files_of(dataset: Dataset) -> dict[str, Any]:
    return {**dataset.manifest.files, "counts": dataset.manifest.counts}


@pytest.mark.parametrize("moment", ["read pieces", "fold into shards", "publish"])
def test_a_killed_growth_is_done_again(
    series: tuple[list[list[Row]], list[Grown]], tmp_path: Path, moment: str
) -> None:
    """SIGKILL in the middle of a phase, and when all is published but the dataset itself."""
    place = Path(series[1][0].dataset.artefact.location.path).parent
    run = by_itself(grow_and_die, str(place), str(tmp_path), moment)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    assert not (tmp_path / "1").exists()
    assert (tmp_path / ".1.partial").exists()
    previous = Dataset.open(str(place / "0"))
    grown = grow(previous, [str(place / "log-1")], str(tmp_path / "1"), str(tmp_path / "fresh"), CONFIG)
    assert grown.dataset.manifest.fingerprint() == series[1][0].dataset.manifest.fingerprint()
    assert grown.fresh.manifest.fingerprint() == series[1][0].fresh.manifest.fingerprint()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "fresh"]
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == sorted([MANIFEST, *grown.dataset.manifest.files])


def grow_and_die(place: str, out: str, moment: str) -> None:
    def die(phase: str, done: int, total: int, detail: str = "") -> None:
        if phase == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    if moment == "publish":
        growing._publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    previous = Dataset.open(f"{place}/0")
    grow(previous, [f"{place}/log-1"], f"{out}/1", f"{out}/fresh", CONFIG, report=die)


def test_an_empty_night(series: tuple[list[list[Row]], list[Grown]], tmp_path: Path) -> None:
    """No row at all, in columns whose type nobody knows; and none that is kept."""
    previous = series[1][-1].dataset
    pq.write_table(pa.table({name: pa.nulls(0) for name in ("user_id", "item_id", "rating", "timestamp")}),
                   tmp_path / "0.parquet")  # fmt: skip
    pq.write_table(pa.table({"user_id": ["a"], "item_id": ["b"], "rating": [1.0], "timestamp": [1]}),
                   tmp_path / "1.parquet")  # fmt: skip
    for night in range(2):
        grown = grow(previous, [str(tmp_path / f"{night}.parquet")], str(tmp_path / f"out-{night}"),
                     str(tmp_path / "fresh"), CONFIG)  # fmt: skip
        assert by_id(grown.dataset).histories == by_id(previous).histories
        assert sum(grown.added.values()) == 0
        assert grown.rows == sum(grown.dropped.values()) == night
        assert grown.fresh.num_users == 0


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"user_id": [1]}, {}, r"Column user_id of the log is int64, in .*/3 it is string: ingest the whole log anew"),
        ({"item_id": [1]}, {}, r"Column item_id of the log is int64, in .*/3 it is string"),
        ({"when": [1], "timestamp": None}, {}, r"has no column timestamp, it has: user_id, item_id, rating, when"),
        ({}, {"seed": 9}, r"was made with seed 2: it cannot grow with seed 9"),
        ({}, {"threshold": None}, r"was made with threshold 2\.0: it cannot grow with threshold None"),
        ({}, {"split": Split.RANDOM}, r"cannot grow: that takes the split stable"),
        ({}, {"k_core": 2}, r"no least number of interactions of a user and no k-core"),
        ({}, {"until": "yesterday"}, r"^yesterday is not a value that the timestamp column \(int64\) can have"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(
    series: tuple[list[list[Row]], list[Grown]], tmp_path: Path, columns: dict[str, Any], options: Any, message: str
) -> None:
    good: dict[str, Any] = {"user_id": ["1"], "item_id": ["2"], "rating": [5.0], "timestamp": [7]}
    night = {name: values for name, values in {**good, **columns}.items() if values}
    pq.write_table(pa.table(night), tmp_path / "log.parquet")
    config = replace(CONFIG, **options)
    with pytest.raises(InputError, match=message):
        grow(series[1][-1].dataset, [str(tmp_path / "log.parquet")], str(tmp_path / "1"), str(tmp_path / "2"), config)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_a_new_column_is_no_matter(series: tuple[list[list[Row]], list[Grown]], tmp_path: Path) -> None:
    night = {"user_id": ["new"], "item_id": ["2"], "rating": [5.0], "timestamp": [7], "price": [1.5]}
    pq.write_table(pa.table(night), tmp_path / "log.parquet")
    previous = series[1][-1].dataset
    grown = grow(previous, [str(tmp_path / "log.parquet")], str(tmp_path / "1"), str(tmp_path / "2"), CONFIG)
    assert as_naive(grown.dataset, sorted_users=False).histories["new"][0] is False
    assert grown.added["users"] == 1
