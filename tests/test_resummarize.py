"""`infrec resummarize`, night after night: what it publishes, what it keeps, and how it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import infrec.jobs.resummarize
from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster
from infrec.pipeline.data import Dataset
from infrec.pipeline.ingest import IngestConfig, Split, ingest
from infrec.pipeline.storage.lock import GUARD, LOCK
from tests.naive_ingest import as_naive
from tests.nightly import NOW, Nights
from tests.nodes import joining
from tests.patience import PATIENCE_SECONDS
from tests.sentence import assert_one_sentence

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def begun(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return Nights.begun(tmp_path_factory.mktemp("begun"))


@pytest.fixture
def nights(begun: Nights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Nights:
    """The same with a log and a state of its own."""
    nights = Nights(tmp_path, begun.first)
    shutil.copytree(begun.state, nights.state)
    capsys.readouterr()
    return nights


def no_ray(**_: object) -> AbstractContextManager[Cluster]:
    raise AssertionError("Ray is not needed")


def histories(dataset: Dataset) -> dict[Any, Any]:
    return as_naive(dataset, sorted_users=False).histories


def test_nothing_new(nights: Nights, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(infrec.jobs.resummarize, "ray_session", no_ray)
    assert nights.run() == 0
    assert "Nothing is new in the log" in capsys.readouterr().out
    assert nights.run("--json") == 0
    assert json.loads(capsys.readouterr().out) == {"decision": "nothing new", "version": "000001"}
    assert nights.versions == ["000001"] and len(nights.history(capsys)) == 1


def test_night_after_night(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    cold, items = nights.summary(), nights.dataset().items()["item_id"].to_pylist()
    nights.write(1)
    assert nights.run("--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["decision"] == "published" and shown["version"] == nights.current == "000002"
    assert shown["rows"] == shown["added"] == len(nights.rows(1)) and shown["files"]["new"] == 1
    assert 0 < shown["quality"]["fresh"]["users"] < shown["quality"]["known"]["users"]
    assert shown["quality"]["known"]["old"] > 0
    warm = nights.summary().manifest
    assert warm.inputs["warm_start"] == cold.manifest.fingerprint()
    assert warm.config["options"]["steps"] == cold.manifest.config["options"]["steps"] // 2

    # A late file, whose name comes before the others', and one that has grown
    nights.write(2, name="a-late-one.parquet")
    nights.write(1, pa.concat_tables([nights.rows(1), nights.rows(3)]))
    assert nights.run("--keep", "2") == 0
    assert "versions/000003 is published." in capsys.readouterr().out
    assert nights.versions == ["000002", "000003"]
    scratch = nights.state.with_name("scratch")
    everything = ingest([str(nights.first), str(nights.log)], str(scratch), IngestConfig(split=Split.STABLE))
    assert histories(nights.dataset()) == histories(everything)
    assert nights.dataset().items()["item_id"].to_pylist()[: len(items)] == items

    rows = nights.history(capsys)
    assert [row["decision"] for row in rows] == ["published"] * 3
    assert rows[2]["added"] == len(nights.rows(2)) + len(nights.rows(3)) < rows[2]["rows"]
    assert main(["history", str(nights.state)]) == 0
    table = capsys.readouterr().out
    assert "version 000003 is current" in table and table.count("published") == 3


def test_garbage_is_kept_out(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    nights.write(1)
    assert nights.run() == 0
    garbage = nights.rows(2)
    shuffled = np.random.default_rng(1).permutation(garbage["item_id"].to_numpy())
    nights.write(2, garbage.set_column(1, "item_id", pa.array(shuffled)))
    capsys.readouterr()
    for _ in range(2):  # and the next run again
        assert nights.run() == 3
        told = capsys.readouterr().err
        assert "infrec: version 000002 stays: the new interactions look like garbage: " in told
        assert "Current version" in told  # and how old it is, to the metrics as well
        assert nights.current == "000002" and nights.versions == ["000001", "000002"]
    nights.write(2)  # mended
    assert nights.run() == 0
    assert nights.current == "000003"
    decisions = [row["decision"] for row in nights.history(capsys)]
    assert decisions == ["published", "published", "kept", "kept", "published"]


def test_a_rewritten_log(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    nights.write(1)
    late = nights.write(2)
    assert nights.run() == 0
    items = nights.dataset().items()["item_id"].to_pylist()
    capsys.readouterr()
    late.unlink()
    nights.write(1, nights.rows(1)[:400])
    assert nights.run() == 2
    assert_one_sentence(capsys, f"{late} is gone, but folded into the summary: restore it, or allow a rewrite")
    assert nights.current == "000002"
    assert nights.run("--allow-rewrite") == 0
    captured = capsys.readouterr()
    assert "1 files are gone and 1 rewritten: the dataset is made anew." in captured.err
    assert "rows of the whole log (1 rewritten file, 1 vanished file);" in captured.out
    *_, row = nights.history(capsys)
    assert row["added"] == 400 - len(nights.rows(1)) - len(nights.rows(2))
    assert nights.current == "000003"
    everything = ingest(
        [str(nights.first), str(nights.log)], str(nights.state.with_name("scratch")), IngestConfig(split=Split.STABLE)
    )
    assert histories(nights.dataset()) == histories(everything)
    assert nights.dataset().items()["item_id"].to_pylist()[: len(everything.items())] != items  # fewer, in old places


def test_a_window_and_the_future(
    begun: Nights, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights = Nights(tmp_path, begun.first)
    assert nights.run("--window", "30d") == 0
    future = nights.rows(1)[:7].set_column(2, "timestamp", pa.array([NOW + 5 * 86_400] * 7))
    past = nights.rows(1)[7:20].set_column(2, "timestamp", pa.array([NOW - 40 * 86_400] * 13))
    nights.write(1, pa.concat_tables([nights.rows(1)[20:], future, past]))
    capsys.readouterr()
    assert nights.run("--window", "30d") == 0
    errors = capsys.readouterr().err
    assert "7 rows dropped: at or after --until." in errors and "13 rows dropped: before --since." in errors
    assert nights.dataset().manifest.counts["rows"] == len(nights.rows(0)) + len(nights.rows(1))
    assert nights.run() == 2
    assert "window 30d there, None here" in capsys.readouterr().err


def test_rollback(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    nights.write(1)
    assert nights.run() == 0
    assert main(["rollback", str(nights.state)]) == 0
    assert "versions/000001 is current; it was 000002." in capsys.readouterr().out
    assert nights.run() == 0  # folds night 1 in again
    assert nights.current == "000003" and nights.versions == ["000001", "000003"]
    capsys.readouterr()
    assert main(["rollback", str(nights.state), "--to", "000002"]) == 2
    assert_one_sentence(capsys, "000002 is not a whole version")
    rows = nights.history(capsys)
    assert [row["decision"] for row in rows] == ["published", "published", "rolled back", "published"]
    assert [row["version"] for row in rows] == ["000001", "000002", "000001", "000003"]


def test_a_damaged_current_version(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    nights.write(1)
    assert nights.run() == 0
    labels = nights.state / "versions" / "000002" / "summary" / "labels.parquet"
    labels.write_bytes(labels.read_bytes()[:-1] + b"?")
    nights.write(2)
    capsys.readouterr()
    assert nights.run() == 0
    errors = capsys.readouterr().err
    assert "labels.parquet is damaged: its checksum is not the manifest's. Version 000001 took its place." in errors
    assert nights.current == "000003"
    assert [row["decision"] for row in nights.history(capsys)] == ["published", "published", "fell back", "published"]

    (nights.state / "current").write_text('{"version": 3}')
    assert nights.run() == 0
    captured = capsys.readouterr()
    assert "current is damaged: it names no version. Version 000003 took its place." in captured.err
    assert "Nothing is new" in captured.out and nights.current == "000003"

    for version in nights.versions:
        (nights.state / "versions" / version / "summary" / "labels.parquet").write_bytes(b"")
    capsys.readouterr()
    assert nights.run() == 2
    assert_one_sentence(capsys, "is whole (")
    assert nights.run("--allow-rewrite") == 0
    assert nights.current == "000004" and nights.run() == 0


def test_a_new_column_and_another_type(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    table = nights.rows(1)
    nights.write(1, table.append_column("price", pa.array(np.ones(len(table)))))
    assert nights.run() == 0
    capsys.readouterr()
    nights.write(2, table.set_column(1, "item_id", table["item_id"].cast(pa.string())))
    assert nights.run() == 2
    assert_one_sentence(capsys, "Column item_id of the log is string, in ")
    assert nights.current == "000002"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--budget", "41"], "was made with other options (budget 40 there, 41 here)"),
        (["--user", "customer"], "(user user_id there, customer here)"),
        (["--seed", "1"], "(seed 0 there, 1 here)"),
        (["--tolerance", "1"], "The tolerance must lie in 0 … 1, it is 1 (--tolerance)."),
        (["--tolerance", "nan"], "The tolerance must lie in 0 … 1, it is nan (--tolerance)."),
        (["--keep", "0"], "The number of versions to keep must be at least 1, it is 0 (--keep)."),
        (["--window", "soon"], "The window soon is not a number of days: write it like 90d (--window)."),
        (["--budget", "0"], "The budget must be at least 1, it is 0 (--budget)."),
        (["--logs", "nowhere"], "There is no log at nowhere."),
    ],
)
def test_it_refuses_in_one_sentence(
    begun: Nights, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert begun.run(*options) == 2
    assert_one_sentence(capsys, sentence)
    assert begun.current == "000001"


def test_memory_is_planned(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    nights.write(1)
    assert nights.run("--memory-limit", "1MB") == 2
    assert "the memory limit is 0.00 GB" in capsys.readouterr().err
    assert nights.current == "000001"
    assert nights.run() == 0


def test_a_state_in_an_unknown_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job in (["history"], ["rollback"]):
        assert main([*job, str(tmp_path)]) == 2
        assert_one_sentence(capsys, f"There is no state of infrec resummarize at {tmp_path}.")


def test_two_at_once(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    nights.write(1)
    command = [sys.executable, "-m", "jobs", *nights.command, "--json"]
    settings: dict[str, Any] = {"cwd": REPOSITORY, "env": os.environ | joining(), "text": True}
    settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    first = subprocess.Popen(command, **settings)
    while not (nights.state / LOCK).exists():
        assert first.poll() is None
        time.sleep(0.01)
    with (nights.state / GUARD).open("ab") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # it is not just looking at the lock
        first.send_signal(signal.SIGSTOP)  # so that the second one meets it at work, however slow the machine
    second = subprocess.run(command, timeout=PATIENCE_SECONDS, **settings)
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=PATIENCE_SECONDS)
    assert (first.returncode, second.returncode) == (0, 4), errors + second.stderr
    assert nights.versions == ["000001", "000002"]
    assert [row["decision"] for row in nights.history(capsys)] == ["published", "published"]
    assert "is being changed by run " in second.stderr
