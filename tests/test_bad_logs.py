"""Bad logs and options are refused in a sentence, and a run that fails leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster
from infrec.pipeline.cluster.sessions import RAY_PAYS_SECONDS
from infrec.pipeline.data import Dataset
from infrec.pipeline.ingest import Format, IngestConfig, find_files, ingest, ingest_work, rows_in
from tests.nodes import joining
from tests.patience import PATIENCE_SECONDS
from tests.sentence import assert_one_sentence

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("cluster")


def parquet(path: Path, **columns: Any) -> Path:
    """A sound log of four rows, with some columns replaced or added."""
    path.parent.mkdir(parents=True, exist_ok=True)
    events = {"user_id": [1, 1, 1, 2], "item_id": [10, 20, 30, 20], "rating": [4.0, 5.0, 3.5, 1.0]}
    pq.write_table(pa.table({**events, "timestamp": [100, 300, 200, 400], **columns}), path)
    return path


def cut_in_half(path: Path) -> None:
    content = parquet(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


BAD_LOGS: dict[str, tuple[Callable[[Path], Any], list[str], str]] = {
    "missing path": (lambda log: None, [], "There is no log at {log}"),
    "no file": (lambda log: log.mkdir(), [], "There is no log file under {log}"),
    "no log file": (
        lambda log: (log.mkdir(), (log / "notes.txt").touch()),
        [],
        "There is no log file under {log}",
    ),
    "unknown suffix": (lambda log: log.write_text("x"), [], "{log} has no suffix that infrec knows"),
    "zero bytes": (
        lambda log: (parquet(log / "a.parquet"), (log / "b.parquet").touch()),
        [],
        "{log}/b.parquet is not a whole Parquet file (0 bytes)",
    ),
    "cut in half": (
        lambda log: (parquet(log / "a.parquet"), cut_in_half(log / "b.parquet")),
        [],
        "{log}/b.parquet is not a whole Parquet file",
    ),
    "only bad files": (
        lambda log: cut_in_half(log / "b.parquet"),
        ["--on-bad-file", "skip"],
        "None of the log's 1 files can be read",
    ),
    "missing column": (
        lambda log: parquet(log / "a.parquet"),
        ["--user", "customer"],
        "{log}/a.parquet has no column customer, it has: user_id, item_id, rating, timestamp (--user).",
    ),
    "missing column in text": (
        lambda log: (log.mkdir(), (log / "a.csv").write_text("user_id,thing\n1,2\n")),
        [],
        "{log}/a.csv has no column item_id, it has: user_id, thing (--item).",
    ),
    "missing split": (
        lambda log: parquet(log / "a.parquet"),
        ["--split", "column"],
        "{log}/a.parquet has no column split, it has: user_id, item_id, rating, timestamp (--split-column).",
    ),
    "wrong type": (
        lambda log: parquet(log / "a.parquet", item_id=[1.5] * 4),
        [],
        "Column item_id of {log}/a.parquet is double: the item column must hold integers or strings.",
    ),
    "ratings that are text": (
        lambda log: parquet(log / "a.parquet", rating=["good"] * 4),
        [],
        "Column rating of {log}/a.parquet is string",
    ),
    "schemas differ": (
        lambda log: (parquet(log / "a.parquet"), parquet(log / "b.parquet", item_id=["x"] * 4)),
        [],
        "The log's files differ in column item_id: it is int64 in {log}/a.parquet and string in {log}/b.parquet.",
    ),
    "ids all null": (
        lambda log: parquet(log / "a.parquet", user_id=pa.nulls(4)),
        [],
        "None of the log's 4 rows is left: 4 without user.",
    ),
    "ratings not numbers": (
        lambda log: parquet(log / "a.parquet", rating=[np.nan, np.inf, -np.inf, None]),
        [],
        "None of the log's 4 rows is left: 4 rating missing or not finite.",
    ),
    "nothing above threshold": (
        lambda log: parquet(log / "a.parquet"),
        ["--threshold", "4.5", "--k-core", "2"],
        "None of the log's 4 rows is left: 3 rating below threshold, 1 outside k-core.",
    ),
    "no user with enough": (
        lambda log: parquet(log / "a.parquet"),
        ["--min-user-interactions", "9"],
        "None of the log's 4 rows is left: 4 users below minimum.",
    ),
    "no rows": (
        lambda log: pq.write_table(pq.read_table(parquet(log / "a.parquet"))[:0], log / "a.parquet"),
        [],
        "None of the log's 0 rows is left: it has none.",
    ),
    "threshold not a number": (lambda log: parquet(log / "a.parquet"), ["--threshold", "nan"], "--threshold"),
    "k-core of zero": (
        lambda log: parquet(log / "a.parquet"),
        ["--k-core", "0"],
        "The k of the k-core must be at least 1, it is 0 (--k-core).",
    ),
    "cut in no time": (
        lambda log: parquet(log / "a.parquet"),
        ["--split", "temporal", "--validation-from", "yesterday"],
        "yesterday is not a value that the timestamp column (int64) can have (--validation-from).",
    ),
    "cuts in the wrong order": (
        lambda log: parquet(log / "a.parquet"),
        ["--split", "temporal", "--validation-from", "5", "--test-from", "4"],
        "Validation must not begin after test",
    ),
    "unknown split": (
        lambda log: parquet(log / "a.parquet"),
        ["--split", "chance"],
        "'chance' is not one of",
    ),
    "items of another type": (
        lambda log: (
            parquet(log.parent / "old.parquet", item_id=["x"] * 4),
            ingest([str(log.parent / "old.parquet")], str(log.parent / "old"), IngestConfig()),
            parquet(log / "a.parquet"),
        ),
        ["--items-from", "{parent}/old"],
        "The log's item ids (item_id) are int64, those of {parent}/old are string.",
    ),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_bad_logs(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, options, expected = BAD_LOGS[case]
    log, out = tmp_path / "log", tmp_path / "out"
    make(log)
    names = {"log": log, "parent": tmp_path}
    options = [option.format(**names) for option in options]
    assert main(["ingest", str(log), "--out", str(out), *options]) == 2
    assert assert_one_sentence(capsys, expected.format(**names)).endswith(".")
    assert not out.exists()
    assert not (tmp_path / ".out.partial").exists()


def test_bad_files_can_be_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    parquet(log / "a.parquet")
    cut_in_half(log / "b.parquet")
    (log / "c.parquet").touch()
    (log / "d.csv").touch()
    arguments = ["ingest", str(log), "--out", str(tmp_path / "out"), "--on-bad-file", "skip"]
    assert main(arguments) == 0
    assert "bad files passed over" in capsys.readouterr().out
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.manifest.counts["bad_files"] == ["b.parquet", "c.parquet", "d.csv"]
    assert dataset.num_users == 2


def test_a_damaged_page_is_named_or_counted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        table = pa.table({"user_id": random.integers(50, size=9000), "item_id": random.integers(2**60, size=9000)})
        pq.write_table(table, tmp_path / f"{name}.parquet", use_dictionary=False)
    content = bytearray((tmp_path / "b.parquet").read_bytes())
    content[100:4000] = b"\xff" * 3900
    (tmp_path / "b.parquet").write_bytes(content)
    arguments = ["ingest", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert main([*arguments, "--on-bad-file", "skip"]) == 0
    counts = Dataset.open(tmp_path / "out").manifest.counts
    assert counts["rows"] == 18_000
    assert counts["dropped"] == {"in damaged pages": 9000}


def test_what_is_published_survives_a_run_that_fails(tmp_path: Path) -> None:
    log = parquet(tmp_path / "log.parquet")
    arguments = ["ingest", str(log), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    before = Dataset.open(tmp_path / "out").manifest
    assert main(arguments) == 2, "the output exists"
    assert main([*arguments, "--overwrite", "--threshold", "9"]) == 2
    assert Dataset.open(tmp_path / "out").manifest == before
    assert main([*arguments, "--overwrite", "--threshold", "4"]) == 0
    assert Dataset.open(tmp_path / "out").manifest.counts["dropped"] == {"rating below threshold": 2}


def test_a_log_is_not_overwritten_by_its_dataset(tmp_path: Path) -> None:
    parquet(tmp_path / "out" / "log.parquet")
    arguments = ["ingest", str(tmp_path / "out"), "--out", str(tmp_path / "out"), "--overwrite"]
    assert main(arguments) == 2
    assert (tmp_path / "out" / "log.parquet").exists()


@pytest.mark.parametrize("where", ["on Ray", "in threads"])
def test_interrupt_publishes_nothing(where: str, cluster: Cluster, tmp_path: Path) -> None:
    """Ctrl-C in a process of its own, which ends with one sentence, 130 and nothing that a reader accepts."""
    log, out = tmp_path / "log", tmp_path / "out"
    random = np.random.default_rng(0)
    for number in range(4):
        users, items = random.integers(200_000, size=1 << 18), random.integers(5_000, size=1 << 18)
        (log / f"day={number}").mkdir(parents=True)
        pq.write_table(pa.table({"user_id": users, "item_id": items}), log / f"day={number}" / "a.parquet")
    assert ingest_work(rows_in(find_files([str(log)], Format.AUTO))).seconds() < RAY_PAYS_SECONDS
    command = [sys.executable, "-m", "jobs", "ingest", str(log), "--out", str(out)]
    environment = os.environ | (joining() if where == "on Ray" else {})
    settings: dict[str, Any] = {"cwd": ROOT, "env": environment, "text": True}
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **settings)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(tmp_path.glob(".out.partial/_work/rows-*.arrow")):  # the first of four pieces
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    printed, said = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 130, said
    assert printed == ""
    assert "Traceback" not in said
    assert said.count("infrec: ") == 1
    assert not out.exists()
    subprocess.run(command, check=True, **settings)  # it goes on
