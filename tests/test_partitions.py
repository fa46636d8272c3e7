"""Changes in the files of a log are found."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.pipeline.ingest import Format, find_files
from infrec.pipeline.nightly.log_changes import Changes, SeenFile, from_json, to_json
from infrec.pipeline.storage import InputError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    for night in range(3):
        _write(tmp_path / f"night-{night}.parquet", rows=100 + night)
    (tmp_path / "more.csv").write_text("user_id,item_id\n1,2\n")
    return tmp_path


def test_nothing_new(log: Path) -> None:
    before = _changes(log, {}).now
    assert not _changes(log, from_json(to_json(before)))


def test_a_touched_file_is_the_same(log: Path) -> None:
    before = _changes(log, {}).now
    os.utime(log / "night-1.parquet", (1, 1))
    assert not _changes(log, before)


def test_each_kind_of_change(log: Path) -> None:
    before = _changes(log, {}).now
    assert len(before) == 4 and before[str(log / "night-2.parquet")].rows == 102
    _write(log / "night-0.parquet", rows=100, first=7)
    _write(log / "night-1.parquet", rows=300)
    (log / "night-2.parquet").unlink()
    _write(log / "late.parquet", rows=1)
    with (log / "more.csv").open("a") as text:
        text.write("3,4\n")
    changes = _changes(log, before)
    assert _names(changes.new) == ["late.parquet"]
    assert _names(changes.grown) == ["more.csv", "night-1.parquet"]
    assert _names(changes.rewritten) == ["night-0.parquet"]
    assert _names(changes.vanished) == ["night-2.parquet"]
    assert changes.took_away
    with pytest.raises(InputError, match=r"night-2\.parquet is gone, but folded .* allow a rewrite"):
        changes.refuse_losses()


def test_a_file_that_shrank(log: Path) -> None:
    before = _changes(log, {}).now
    _write(log / "night-1.parquet", rows=50)
    _write(log / "night-2.parquet", rows=50)
    with pytest.raises(InputError, match=r"night-1\.parquet is rewritten .*, and so are 1 more files of the log"):
        _changes(log, before).refuse_losses()


def test_a_log_that_only_grows(log: Path) -> None:
    before = _changes(log, {}).now
    _write(log / "night-3.parquet", rows=10)
    changes = _changes(log, before)
    changes.refuse_losses()
    assert _names(changes.to_fold) == ["night-3.parquet"] and not changes.took_away


def _changes(log: Path, before: dict[str, SeenFile]) -> Changes:
    return Changes.between(before, find_files([str(log)], Format.AUTO))


def _names(addresses: list[str]) -> list[str]:
    return [Path(address).name for address in addresses]


def _write(path: Path, *, rows: int, first: int = 0) -> None:
    pq.write_table(pa.table({"user_id": list(range(first, first + rows)), "item_id": [1] * rows}), path)
