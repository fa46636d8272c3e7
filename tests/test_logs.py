"""Logs of every format, every layout of files, and every mixture of types that go together are accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.pipeline.data import Dataset
from infrec.pipeline.ingest import Format, IngestConfig, OnBadFile, Split, find_files, ingest
from infrec.pipeline.ingest.reading.logs import Column, LogFile, Role
from infrec.pipeline.ingest.reading.pieces import cut, read
from infrec.pipeline.ingest.reading.text import BLOCK_BYTES
from infrec.pipeline.storage import Location
from tests.naive_ingest import as_naive

ROOT = Path(__file__).parents[1]
EVENTS = {"user_id": [1, 1, 1, 2], "item_id": [10, 20, 30, 20], "rating": [4.0, 5.0, 3.5, 1.0]}
TIMES = [100, 300, 200, 400]
BY_TIME = {1: (False, [10], [30], [20]), 2: (False, [20], [], [])}

pytestmark = pytest.mark.usefixtures("cluster")


def by_time(*logs: Path | str, **options: Any) -> Dataset:
    """Ingest with the leave-last split, which shows whether ids and times were understood."""
    out = f"{Path(str(logs[0])).parent}/out"
    config = IngestConfig(split=Split.LEAVE_LAST, **options)
    return ingest([str(log) for log in logs], out, config, overwrite=True)


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**EVENTS, "timestamp": TIMES, **columns}), path)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.csv", 'item_id,"user_id",other,timestamp\n10,1,"a,b",100\n20,1,,300\n30,1,x,200\n20,2,y,400\n'),
        ("ratings.dat", "1::10::4::100\n1::20::5::300\n1::30::3.5::200\n2::20::1::400\n"),
        ("u.data", "1\t10\t4\t100\n1\t20\t5\t300\n1\t30\t3\t200\n2\t20\t1\t400\n"),
        (
            "log.inter",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            "1\t10\t4\t100\n1\t20\t5\t300\n1\t30\t3\t200\n2\t20\t1\t400\n",
        ),
    ],
    ids=["csv", "ratings.dat", "u.data", "inter"],
)
def test_text_formats(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert as_naive(by_time(tmp_path / name)).histories == BY_TIME
    (tmp_path / name).write_text(text.replace("\n", "\r\n"))
    assert as_naive(by_time(tmp_path / name)).histories == BY_TIME


def test_compressed_text(tmp_path: Path) -> None:
    text = b"user_id,item_id,timestamp\n1,10,100\n1,20,300\n1,30,200\n2,20,400\n"
    with pa.output_stream(tmp_path / "log.csv.gz", compression="gzip") as stream:
        stream.write(text)
    assert as_naive(by_time(tmp_path / "log.csv.gz")).histories == BY_TIME


def test_ids_that_turn_out_to_be_text_after_the_first_block(
    tmp_path: Path,
) -> None:
    comment = "x" * 1000
    rows = BLOCK_BYTES // len(comment) + 1
    lines = [f"{n},{n % 7},{comment}\n" for n in range(rows)]
    (tmp_path / "log.csv").write_text("user_id,item_id,comment\n" + "".join(lines) + "u1,3,\n")
    dataset = ingest([str(tmp_path / "log.csv")], str(tmp_path / "out"), IngestConfig())
    assert dataset.num_users == rows + 1
    assert dataset.items()["item_id"].to_pylist() == [str(n) for n in range(7)]


def test_directories_globs_and_hidden_files(tmp_path: Path) -> None:
    files = [parquet(tmp_path / "log" / f"day={day}" / f"{part}.parquet") for day in (1, 2) for part in "ab"]
    (tmp_path / "log" / "_SUCCESS").touch()
    (tmp_path / "log" / "day=1" / ".a.parquet.crc").write_text("x")
    (tmp_path / "log" / "notes.txt").write_text("x")

    def found(*logs: str) -> list[str]:
        return [str(file.location) for file in find_files([f"{tmp_path}/{log}" for log in logs], Format.AUTO)]

    names = [str(file) for file in files]
    assert found("log") == names
    assert found("log/day=*") == names
    assert found("log/**/*.parquet") == names
    assert found("log/*/a.parquet") == [names[0], names[2]]
    assert found("log/day=2", "log/day=1/a.parquet") == [names[2], names[3], names[0]]
    assert found("log", "log") == names, "each file once"


def test_hive_partitions_are_columns(tmp_path: Path) -> None:
    for split, user in (("train", 1), ("test", 1), ("train", 2)):
        table = pa.table({"item_id": [f"{split}-{user}"]})
        folder = tmp_path / "log" / f"split={split}" / f"user_id={user}"
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "part.parquet")
    dataset = ingest([str(tmp_path / "log")], str(tmp_path / "out"), IngestConfig(split=Split.COLUMN))
    assert as_naive(dataset).histories == {
        1: (False, ["train-1"], [], ["test-1"]),
        2: (False, ["train-2"], [], []),
    }


def test_types_that_go_together(tmp_path: Path) -> None:
    a = parquet(tmp_path / "a.parquet", user_id=pa.array([1] * 4, pa.int32()), item_id=pa.array(list("wxyz")))
    b = parquet(tmp_path / "b.parquet", item_id=pa.array(list("wxyz"), pa.large_string()))
    c = parquet(tmp_path / "c.parquet", item_id=pa.array(list("wxyz")).dictionary_encode(), rating=[1, 2, 3, 4])
    dataset = by_time(a, b, c)
    assert dataset.shard(0).user_ids.to_pylist() == [1, 2]
    assert dataset.items()["item_id"].to_pylist() == list("wxyz")


def test_pieces_cover_the_log_whatever_its_row_groups(tmp_path: Path) -> None:
    sizes = [(1000, 1000), (10, 3), (2500, 2500), (0, 1), (700, 100)]  # rows, rows a row group
    files, users = [], []
    for number, (rows, group) in enumerate(sizes):
        ids = np.arange(rows) + 10_000 * number
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"user_id": ids}), path, row_group_size=group)
        users.extend(ids.tolist())
        groups = pq.read_metadata(path)
        counts = tuple(groups.row_group(index).num_rows for index in range(groups.num_row_groups))
        files.append(LogFile(Location.of(path), path.name, pq.read_schema(path), counts, {}))
    pieces = cut(files, 600)
    columns = {Role.USER: Column("user_id", pa.int64())}
    tables = [list(read(piece, columns, piece_rows=600, on_bad_file=OnBadFile.ERROR)) for piece in pieces]
    assert [len(group) for group in tables] == [piece.parts for piece in pieces]
    assert all(len(table) <= 600 for group in tables for table in group)
    assert [row for group in tables for table in group for row in table["user"].to_pylist()] == users
