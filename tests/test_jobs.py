"""fit, evaluate and recommend from the command line: what they print, how they refuse, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster
from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind
from infrec.pipeline.storage.artefact import FORMAT_VERSION
from tests.builders import write_dataset
from tests.matrices import split_matrix, taste_matrix
from tests.nodes import PATIENTLY
from tests.patience import PATIENCE_SECONDS
from tests.sentence import assert_one_sentence

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    matrix = taste_matrix(120, 60, seed=0)
    out = tmp_path_factory.mktemp("jobs") / "dataset"
    write_dataset(out, *split_matrix(matrix, seed=0))
    return str(out)


@pytest.fixture(scope="module")
def model(dataset: str, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("jobs") / "model")
    assert main(["fit", dataset, "--out", out, "--lambda", "5", "--exponents", "0.4,0.25"]) == 0
    return out


def test_fit_evaluate_recommend(dataset: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    popularity, recommendations = str(tmp_path / "popularity"), str(tmp_path / "recommendations")
    assert main(["fit", dataset, "--model", "popularity", "--out", popularity, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["model"] == "popularity"

    assert main(["evaluate", model, popularity, "--data", dataset, "--json"]) == 0
    ours, floor = json.loads(capsys.readouterr().out)["evaluations"]
    assert ours["metrics"]["nDCG@10"] > floor["metrics"]["nDCG@10"]
    assert ours["users"] + ours["skipped"] == 120

    assert main(["recommend", model, "--data", dataset, "--k", "7", "--out", recommendations]) == 0
    assert "840 rows for 120 users" in capsys.readouterr().out
    table = pa.concat_tables(map(pq.read_table, Path(recommendations).glob("*.parquet"))).to_pandas()
    assert table.groupby("user_id").size().eq(7).all()
    assert table["item_id"].str.fullmatch(r"i\d+").all()


def test_fit_on_landmarks(dataset: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "model")
    options = ["--solver", "nystrom", "--landmarks", "40", "--landmark-sampling", "uniform", "--normalize", "none"]
    assert main(["fit", dataset, "--out", out, *options]) == 0
    assert "p=0, q=0, 40 landmarks (" in capsys.readouterr().out
    assert main(["evaluate", out, "--data", dataset]) == 0
    assert main(["fit", dataset, "--out", out, "--overwrite", "--solver", "nystrom", "--normalize", "none"]) == 0
    assert "120 landmarks (" in capsys.readouterr().out  # all users, where there are fewer than the default


def test_fit_in_files(dataset: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same model as in memory, which is what `auto` chooses for so few users."""
    out = str(tmp_path / "model")
    assert main(["fit", dataset, "--out", out, "--solver", "tiled", "--lambda", "5", "--exponents", "0.4,0.25"]) == 0
    capsys.readouterr()
    assert main(["evaluate", model, out, "--data", dataset, "--json"]) == 0
    in_memory, in_files = json.loads(capsys.readouterr().out)["evaluations"]
    assert in_files["metrics"]["nDCG@10"] == pytest.approx(in_memory["metrics"]["nDCG@10"], abs=0.5)


def test_the_solver_that_auto_takes_is_recorded_and_can_be_pinned(
    dataset: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_itself, pinned = tmp_path / "auto", tmp_path / "pinned"
    assert main(["fit", dataset, "--out", str(by_itself), "--lambda", "5", "--normalize", "none"]) == 0
    solver = Artefact.open(by_itself, Kind.MODEL).manifest.config["solver"]
    assert solver == "exact" and "--solver exact" in capsys.readouterr().err
    command = ["fit", dataset, "--out", str(pinned), "--lambda", "5", "--normalize", "none", "--solver", solver]
    assert main(command) == 0
    assert (by_itself / "manifest.json").read_bytes() == (pinned / "manifest.json").read_bytes()


def test_plan_says_which_solver_and_why(
    dataset: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", dataset]) == 0
    lines = capsys.readouterr().out.splitlines()
    for solver, outcome in (("exact", "chosen"), ("tiled", "fits"), ("nystrom", "fits")):
        assert any(solver in line and outcome in line for line in lines)
    assert main(["plan", dataset, "--memory-limit", "1MB", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["chosen"] is None
    assert {one["obstacle"] for one in answer["solvers"].values()} == {"more memory than 0.00 GB"}


def test_evaluate_prints_a_row_for_each_model(dataset: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", model, "--data", dataset, "--part", "validation"]) == 0
    printed = capsys.readouterr().out
    assert "validation: " in printed and "nDCG@10" in printed and model in printed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--lambda", "-1"], "--lambda must be finite and not negative, it is -1."),
        (["--lambda", "nan"], "--lambda must be finite and not negative, it is nan."),
        (["--lambda", "inf"], "--lambda must be finite and not negative, it is inf."),
        (["--lambda", "five"], "--lambda five is not a number or a comma-separated list of numbers."),
        (["--select", "luck"], "luck is not a metric"),
        (["--exponents", "2,0"], "--exponents 2,0 is not a pair P,Q of numbers from 0 to 1"),
        (["--normalize", "none", "--exponents", "0,0"], "--exponents goes with --normalize degree."),
        (["--memory-limit", "plenty"], "--memory-limit plenty is not a size"),
        (["--memory-limit", "1MB"], "raise the memory limit, or take fewer landmarks (--memory-limit, --landmarks)."),
        (["--solver", "tiled", "--memory-limit", "1MB"], "the memory limit is 0.00 GB: raise the limit"),
        (["--depth", "0"], "'--depth'"),
        (["--solver", "exact", "--landmarks", "40"], "--landmarks goes with --solver nystrom."),
        (["--model", "ease", "--landmark-sampling", "uniform"], "--landmark-sampling goes with --solver nystrom."),
        (["--solver", "nystrom", "--landmarks", "0"], "of landmarks must be at least 1, it is 0 (--landmarks)."),
        (
            ["--solver", "nystrom", "--landmarks", "121"],
            "landmarks must lie in 1 … 120, the number of training users; it is 121 (--landmarks).",
        ),
        (["--model", "mf", "--lambda", "0"], "λ of a matrix factorisation must be positive, it is 0."),
        (["--solver", "nystrom", "--landmarks", "40", "--memory-limit", "1MB"], "take fewer landmarks"),
        (["--solver", "nystrom", "--model", "ease"], "--solver nystrom is for --model infinite-ae, not for ease."),
        (["--solver", "guess"], "'auto', 'exact', 'tiled', 'nystrom'"),
        (["--model", "oracle"], "'infinite-ae', 'ease', 'mf', 'popularity'"),
    ],
)
def test_fit_refuses_in_one_sentence(
    dataset: str,
    cluster: Cluster,
    tmp_path: Path,
    options: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", dataset, "--out", str(tmp_path / "model"), *options]) == 2
    assert_one_sentence(capsys, sentence)
    assert not list(tmp_path.iterdir())


def test_files_must_have_room_where_the_model_goes(
    dataset: str,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a disk that has 100 kB free, beside another one. What a killed run left there does not have to fit again."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    usage, room = psutil.disk_usage, 100_000

    def two_disks(path: str) -> Any:
        return SimpleNamespace(free=room) if path.startswith(str(small)) else usage(path)

    monkeypatch.setattr(psutil, "disk_usage", two_disks)
    command = ["fit", dataset, "--solver", "tiled", "--lambda", "5", "--normalize", "none", "--out"]
    assert main([*command, str(small / "model")]) == 2
    assert_one_sentence(
        capsys,
        "the disk has room for 0.00 GB: choose a place on a larger one, or take the Nyström solver (--out, --solver).",
    )
    assert not list(small.iterdir())
    assert main([*command, str(large / "model")]) == 0

    writer = ArtefactWriter(str(small / "model"), Kind.MODEL, purpose={})
    empty = writer.room()
    writer.write("tile", bytes(50_000))
    room -= 50_000
    assert writer.room() == empty


@pytest.mark.parametrize(
    ("k", "sentence"), [("0", "it is 0 (--k)."), ("61", "k must lie in 1 … 60, the number of items; it is 61 (--k).")]
)
def test_recommend_refuses_a_k_that_there_is_not(
    dataset: str, model: str, tmp_path: Path, k: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", model, "--data", dataset, "--k", k, "--out", str(tmp_path / "out")]) == 2
    assert_one_sentence(capsys, sentence)
    assert not list(tmp_path.iterdir())


def test_datasets_that_cannot_be_trusted(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(sentence: str) -> None:
        assert main(["fit", str(tmp_path / "data"), "--out", str(tmp_path / "model")]) == 2
        assert_one_sentence(capsys, sentence)
        assert not (tmp_path / "model").exists()

    refused(f"There is no dataset at {tmp_path / 'data'}.")
    copy = tmp_path / "data"
    subprocess.run(["cp", "-r", dataset, copy], check=True)
    manifest, shard = copy / "manifest.json", copy / "users-00001.parquet"
    whole, body = manifest.read_bytes(), bytearray(shard.read_bytes())

    manifest.write_bytes(whole.replace(f'"version": {FORMAT_VERSION}'.encode(), b'"version": 999'))
    refused(f"has format version 999, this infrec reads up to {FORMAT_VERSION}: upgrade infrec.")
    manifest.write_bytes(whole.replace(b'"users": 120', b'"users": 121'))
    refused("manifest.json is damaged")
    manifest.write_bytes(whole[:100])
    refused("manifest.json is damaged")
    manifest.unlink()
    refused("is not a dataset: it has no manifest.json.")
    manifest.write_bytes(whole)

    body[len(body) // 2] ^= 1
    shard.write_bytes(body)
    refused("users-00001.parquet is damaged: its checksum is not the manifest's.")
    shard.write_bytes(body[:-1])
    refused("users-00001.parquet has")
    shard.unlink()
    refused("users-00001.parquet is missing")


def test_what_is_there_is_replaced_only_on_demand(dataset: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (Path(model) / "manifest.json").read_bytes()
    assert main(["fit", dataset, "--model", "popularity", "--out", model]) == 2
    assert_one_sentence(capsys, "exists: choose another place, or replace it (--out, --overwrite).")
    assert main(["fit", dataset, "--model", "popularity", "--out", dataset, "--overwrite"]) == 2
    assert_one_sentence(capsys, "exists and is not a model: it is not replaced (--out, --overwrite).")
    assert (Path(model) / "manifest.json").read_bytes() == before

    assert main(["fit", dataset, "--out", model, "--lambda", "5", "--exponents", "0.4,0.25", "--overwrite"]) == 0
    assert (Path(model) / "manifest.json").read_bytes() == before  # the same bytes again


def test_a_model_of_other_items_is_refused(
    model: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "other", *split_matrix(taste_matrix(50, 59, seed=1), seed=1))
    assert main(["evaluate", model, "--data", str(tmp_path / "other")]) == 2
    assert_one_sentence(capsys, "knows other items than")


def test_one_user_and_one_item(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, nothing = sp.csr_array(np.ones((1, 1), np.float32)), sp.csr_array((1, 1), dtype=np.float32)
    write_dataset(tmp_path / "one", one, nothing, nothing, shards=1)
    assert main(["fit", str(tmp_path / "one"), "--out", str(tmp_path / "model")]) == 2
    assert_one_sentence(capsys, "has no validation interactions to choose λ on.")


def test_ctrl_c_leaves_nothing_behind_that_a_reader_accepts(tmp_path: Path) -> None:
    matrix = taste_matrix(1500, 300, seed=2)
    write_dataset(tmp_path / "dataset", *split_matrix(matrix, seed=2))
    infrec = [sys.executable, "-c", f"{PATIENTLY}from infrec.jobs.cli import main; raise SystemExit(main())"]
    command = [*infrec, "fit", str(tmp_path / "dataset"), "--out", str(tmp_path / "model"), "--cpus", "2"]
    grid = ",".join(str(1 + step / 100) for step in range(400))
    job = subprocess.Popen([*command, "--lambda", grid], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    staging = tmp_path / ".model.partial"
    _wait_until(staging.exists)
    _wait_until(lambda: _has_descendant(job.pid, "ray::PoolActor"))
    os.kill(job.pid, signal.SIGINT)
    _, errors = job.communicate(timeout=PATIENCE_SECONDS)
    assert job.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
    assert not (tmp_path / "model").exists()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def _has_descendant(pid: int, name: str) -> bool:
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # it may have ended by now
            if name in " ".join(process.cmdline()):
                return True
    return False
