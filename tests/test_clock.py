"""Points in time in the words of a log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.pipeline.ingest import Format, find_files
from infrec.pipeline.ingest.reading.timestamps import parse_time, sortable
from infrec.pipeline.nightly.clock import in_words_of, midnight

THEN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "type_",
    [
        pa.timestamp("s"),
        pa.timestamp("us"),
        pa.timestamp("ns", tz="UTC"),
        pa.timestamp("ms", tz="Asia/Tokyo"),
        pa.date32(),
    ],
)
def test_dates_and_times(tmp_path: Path, type_: pa.DataType) -> None:
    days = [THEN - timedelta(days=number) for number in range(-2, 3)]
    times = pa.array(days, pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us")).cast(type_, safe=False)
    if pa.types.is_timestamp(type_) and type_.tz:
        times = pa.array(days, pa.timestamp("us", tz="UTC")).cast(type_)
    assert list(_earlier(tmp_path, times, THEN.replace(hour=0))) == [False, False, False, True, True]


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("type_", [pa.int64(), pa.float64()])
def test_numbers_of_any_unit(tmp_path: Path, unit: int, type_: pa.DataType) -> None:
    seconds = [int(THEN.timestamp()) + 86_400 * day for day in (-4000, -400, -1, 1, 2)]
    times = pa.array([number * unit for number in seconds]).cast(type_, safe=False)
    assert list(_earlier(tmp_path, times, THEN)) == [True, True, True, False, False]


def test_logs_without_times(tmp_path: Path) -> None:
    pq.write_table(pa.table({"timestamp": ["monday"]}), tmp_path / "log.parquet")
    (tmp_path / "log.csv").write_text("timestamp\n1\n")
    for name, column in (("log.parquet", "timestamp"), ("log.parquet", "when"), ("log.csv", "timestamp")):
        assert in_words_of(find_files([str(tmp_path / name)], Format.AUTO), column, THEN) is None


def test_an_empty_first_file(tmp_path: Path) -> None:
    for name, times in (("a", []), ("b", [int(THEN.timestamp()) * 1000])):
        pq.write_table(pa.table({"timestamp": pa.array(times, pa.int64())}), tmp_path / f"{name}.parquet")
    words = in_words_of(find_files([str(tmp_path)], Format.AUTO), "timestamp", THEN)
    assert words == str(int(THEN.timestamp()) * 1000)


@pytest.mark.parametrize("type_", [pa.int64(), pa.float64()])
def test_unknown_times_tell_no_unit(tmp_path: Path, type_: pa.DataType) -> None:
    now = int(THEN.timestamp()) * 1000
    for name, times in (("a", [None, None]), ("b", [0, 0, -1]), ("c", [0] * 3000 + [now])):
        pq.write_table(pa.table({"timestamp": pa.array(times, type_)}), tmp_path / f"{name}.parquet")
    pq.write_table(pa.table({"timestamp": pa.nulls(2)}), tmp_path / "a-null.parquet")
    assert in_words_of(find_files([str(tmp_path)], Format.AUTO), "timestamp", THEN) == str(now)
    (tmp_path / "c.parquet").unlink()
    assert in_words_of(find_files([str(tmp_path)], Format.AUTO), "timestamp", THEN) is None


def test_midnight() -> None:
    assert 1 < (midnight(2) - datetime.now(UTC)) / timedelta(days=1) <= 2


def _earlier(folder: Path, times: pa.Array, than: datetime) -> list[bool]:
    """Which of the times are earlier, as ingest compares them."""
    pq.write_table(pa.table({"timestamp": times}), folder / "log.parquet")
    words = in_words_of(find_files([str(folder)], Format.AUTO), "timestamp", than)
    assert words
    bound = parse_time(words, times.type, "until")
    return [bool(value < bound) for value in sortable(times)]
