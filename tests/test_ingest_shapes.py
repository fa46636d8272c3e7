"""Awkward logs: one row group for all, row groups of three rows, hundreds of files, users and items of half the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.pipeline.data import Dataset
from infrec.pipeline.ingest import IngestConfig, Split, ingest
from infrec.pipeline.ingest.shuffle import partition as first_pass
from tests.naive_ingest import as_naive, naive_ingest

pytestmark = pytest.mark.usefixtures("cluster")
CONFIG = IngestConfig(piece_rows=150, bucket_rows=400, split=Split.LEAVE_LAST)


def skewed() -> pa.Table:
    """3,000 rows: two fifths are one user's, and half are one item."""
    random = np.random.default_rng(0)
    user = np.where(random.random(3000) < 0.4, 7, random.integers(200, size=3000))
    item = np.where(random.random(3000) < 0.5, 3, random.integers(900, size=3000))
    ids = (pa.array([f"{kind}-{number}" for number in numbers]) for kind, numbers in (("u", user), ("i", item)))
    return pa.table([*ids, pa.array(random.integers(100, size=3000))], names=["user_id", "item_id", "timestamp"])


def write(folder: Path, table: pa.Table, *, files: int, row_group: int) -> Path:
    folder.mkdir()
    for number in range(files):
        share = table[len(table) * number // files : len(table) * (number + 1) // files]
        pq.write_table(share, folder / f"{number:03d}.parquet", row_group_size=row_group)
    return folder


def checksums(dataset: Dataset) -> dict[str, Any]:
    return {name: file.sha256 for name, file in dataset.manifest.files.items()}


def test_the_same_rows_in_files_and_row_groups_of_any_size(
    tmp_path: Path, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_pass, "_PARTS_AT_ONCE", 4)  # of at least twenty: the vocabulary is merged in turns
    table = skewed()
    whole = ingest([str(write(tmp_path / "whole", table, files=1, row_group=5000))], str(tmp_path / "out"), CONFIG)
    rows = [{"rating": 1.0, "split": None, **row} for row in table.to_pylist()]
    assert as_naive(whole) == naive_ingest(rows, CONFIG)
    for files, row_group in ((1, 3), (1, 1000), (300, 5000), (7, 100)):
        with subtests.test(files=files, row_group=row_group):
            log = write(tmp_path / f"{files}-{row_group}", table, files=files, row_group=row_group)
            again = ingest([str(log)], str(tmp_path / f"out-{files}-{row_group}"), CONFIG)
            assert checksums(again) == checksums(whole)
