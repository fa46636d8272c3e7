"""Summaries as files for other programs: each is read back by what reads such files, and is the summary."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import scipy.sparse as sp

from infrec.jobs.cli import main
from infrec.kernels.gumbel_top_k import Choice, interactions
from infrec.pipeline.models import labels_of, summary_matrix
from infrec.pipeline.models.summary import USERS
from infrec.pipeline.serving import ExportFormat, file_content
from infrec.pipeline.storage import Artefact, InputError, Kind, Manifest
from tests.builders import taste_dataset, write_summary
from tests.sentence import assert_one_sentence

BUDGET, ITEMS, USUAL = 12, 60, 19


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    """Few different ones, so that there are ties; some are 0, and the last synthetic user has three items only."""
    rows = np.random.default_rng(0).integers(0, 20, (BUDGET, ITEMS)).astype(np.float32) / 19
    rows[-1, 3:] = 0
    rows[-1, :3] = 0.25
    return rows


@pytest.fixture(scope="module")
def summary(weights: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("export")
    dataset = taste_dataset(folder / "dataset", 120, ITEMS, seed=0)
    assert round(dataset.mean_train_interactions) == USUAL
    return write_summary(folder / "summary", dataset, weights)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job needs no Ray."""
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))


def exported(summary: Artefact, out: Path, *options: str) -> Path:
    assert main(["export", str(summary.location), "--out", str(out), *options]) == 0
    return out


def test_parquet_is_the_table_of_the_summary(summary: Artefact, tmp_path: Path) -> None:
    out = exported(summary, tmp_path / "summary.parquet")
    assert pq.read_table(out).equals(summary.table(USERS))


@pytest.mark.parametrize(
    ("form", "delimiter", "header"),
    [
        ("csv", ",", ["synthetic_user", "item_id", "weight"]),
        ("inter", "\t", ["user_id:token", "item_id:token", "rating:float"]),
    ],
)
def test_text_files_say_every_weight(
    summary: Artefact, tmp_path: Path, form: str, delimiter: str, header: list[str]
) -> None:
    out = exported(summary, tmp_path / "table", "--format", form)
    with out.open(newline="") as file:
        first, *rows = csv.reader(file, delimiter=delimiter)
    assert first == header
    table = summary.table(USERS)
    assert [int(row[0]) for row in rows] == table["synthetic_user"].to_pylist()
    assert [row[1] for row in rows] == table["item_id"].to_pylist()
    np.testing.assert_array_equal(np.array([row[2] for row in rows], np.float32), table["weight"].to_numpy())


def test_recbole_finds_no_quotes(summary: Artefact, tmp_path: Path) -> None:
    out = exported(summary, tmp_path / "summary.inter", "--format", "inter")
    assert out.read_text().startswith("user_id:token\titem_id:token\trating:float\n0\ti")
    assert '"' not in out.read_text()


def test_scipy_reads_the_matrix_and_numpy_the_item_ids(summary: Artefact, weights: np.ndarray, tmp_path: Path) -> None:
    out = exported(summary, tmp_path / "summary.npz", "--format", "npz")
    matrix = sp.load_npz(out)
    assert matrix.format == "csr" and matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix.toarray(), weights)
    with np.load(out, allow_pickle=False) as arrays:
        assert arrays["item_ids"].tolist() == [f"i{item}" for item in range(ITEMS)]


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Some are 0, and one item has labels and no weights."""
    drawn: np.ndarray = np.random.default_rng(1).integers(-2, 3, (BUDGET, ITEMS)).astype(np.float32) / 7
    return drawn


@pytest.fixture(scope="module")
def labelled(weights: np.ndarray, labels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("labelled")
    without = weights.copy()
    without[:, 7] = 0
    return write_summary(folder / "summary", taste_dataset(folder / "dataset", 120, ITEMS, seed=0), without, labels)


@pytest.fixture(scope="module")
def plain(labelled: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The same weights without labels."""
    folder = tmp_path_factory.mktemp("plain")
    dataset = taste_dataset(folder / "dataset", 120, ITEMS, seed=0)
    return write_summary(folder / "summary", dataset, summary_matrix(labelled))


def test_labels_are_in_the_summary(labelled: Artefact, weights: np.ndarray, labels: np.ndarray) -> None:
    found = labels_of(labelled)
    assert found is not None
    np.testing.assert_allclose(found, labels, atol=0.02)
    rows = summary_matrix(labelled)
    assert not rows[:, 7].any()
    others = np.arange(ITEMS) != 7
    np.testing.assert_allclose(rows[:, others], weights[:, others], atol=0.02)


def test_labels_go_along(labelled: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, labels = summary_matrix(labelled), labels_of(labelled)
    assert labels is not None
    table = pq.read_table(exported(labelled, tmp_path / "summary.parquet"))
    assert f"{len(table):,} rows for {BUDGET} synthetic users" in capsys.readouterr().out
    users, items = np.nonzero((weights != 0) | (labels != 0))
    assert table["synthetic_user"].to_pylist() == users.tolist()
    assert table["item_id"].to_pylist() == [f"i{item}" for item in items]
    np.testing.assert_array_equal(table["weight"].to_numpy(), weights[users, items])
    np.testing.assert_array_equal(table["label"].to_numpy(), labels[users, items])
    with exported(labelled, tmp_path / "summary.csv", "--format", "csv").open(newline="") as file:
        first, *rows = csv.reader(file)
    assert first == ["synthetic_user", "item_id", "weight", "label"]
    np.testing.assert_array_equal(np.array([row[3] for row in rows], np.float32), table["label"].to_numpy())
    matrix = exported(labelled, tmp_path / "summary.npz", "--format", "npz")
    np.testing.assert_array_equal(sp.load_npz(matrix).toarray(), weights)
    np.testing.assert_array_equal(np.load(matrix)["labels"], labels)


@pytest.mark.parametrize("form", list(ExportFormat))
def test_interactions_have_no_labels(labelled: Artefact, plain: Artefact, tmp_path: Path, form: str) -> None:
    files = [
        exported(source, tmp_path / name, "--format", form, "--interactions").read_bytes()
        for name, source in (("labelled", labelled), ("plain", plain))
    ]
    assert files[0] == files[1]


def test_recbole_gets_no_labels(labelled: Artefact, plain: Artefact, tmp_path: Path) -> None:
    files = [
        exported(source, tmp_path / name, "--format", "inter").read_bytes()
        for name, source in (("labelled", labelled), ("plain", plain))
    ]
    assert files[0] == files[1]


def test_integers_stay_integers(weights: np.ndarray, tmp_path: Path) -> None:
    ids, matrix = pa.array(range(7000, 7000 + ITEMS)), sp.csr_array(weights)
    content = {form: file_content(matrix, ids, form, with_weights=True)[0] for form in ExportFormat}
    (tmp_path / "npz").write_bytes(content[ExportFormat.NPZ])
    assert np.load(tmp_path / "npz")["item_ids"].tolist() == ids.to_pylist()
    assert pq.read_table(pa.BufferReader(content[ExportFormat.PARQUET])).schema.field("item_id").type == pa.int64()
    item = 7000 + matrix.indices[0]
    assert content[ExportFormat.CSV].to_pybytes().splitlines()[1].startswith(f"0,{item},".encode())
    assert content[ExportFormat.INTER].to_pybytes().splitlines()[1].startswith(f"0\t{item}\t".encode())


@pytest.mark.parametrize("form", list(ExportFormat))
def test_the_same_bytes_again(summary: Artefact, tmp_path: Path, form: str) -> None:
    options = ["--format", form, "--interactions", "--choose", "sample", "--seed", "3"]
    first, second = (exported(summary, tmp_path / name, *options).read_bytes() for name in ("first", "second"))
    assert first == second
    assert exported(summary, tmp_path / "third", *options[:-1], "4").read_bytes() != first


def test_interactions_have_no_weights(summary: Artefact, weights: np.ndarray, tmp_path: Path) -> None:
    def written(form: str) -> Path:
        return exported(summary, tmp_path / form, "--format", form, "--interactions", "--per-user", "4")

    matrix = sp.load_npz(written("npz"))
    np.testing.assert_array_equal(matrix.toarray(), interactions(weights, per_user=4).toarray())
    users, items = matrix.nonzero()
    expected = [[str(user), f"i{item}"] for user, item in zip(users, items, strict=True)]
    with written("csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["synthetic_user", "item_id"], *expected]
    lines = written("inter").read_text().splitlines()
    assert [line.split("\t") for line in lines] == [["user_id:token", "item_id:token"], *expected]
    assert pq.read_table(written("parquet")).to_pydict() == {
        "synthetic_user": users.tolist(),
        "item_id": [item for _, item in expected],
    }


@pytest.mark.parametrize("k", [1, 5, ITEMS])
def test_top_are_the_greatest_weights(weights: np.ndarray, k: int) -> None:
    for row, chosen in zip(weights, interactions(weights, per_user=k).toarray(), strict=True):
        order = sorted(np.flatnonzero(row), key=lambda item: (-row[item], item))
        assert set(np.flatnonzero(chosen)) == set(order[:k])
        assert set(chosen) <= {0, 1}


def test_samples_are_items_that_have_a_weight(weights: np.ndarray) -> None:
    def drawn(seed: int) -> np.ndarray:
        return interactions(weights, per_user=6, choice=Choice.SAMPLE, seed=seed).toarray()

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert (drawn(1) != drawn(2)).any()
    assert not drawn(1)[weights == 0].any()
    assert drawn(1).sum(axis=1).tolist() == [6] * (BUDGET - 1) + [3]


def test_samples_are_drawn_in_proportion_to_the_weights() -> None:
    """Without replacement: the second item from what the first one has left over."""
    p = np.array([0.5, 0.3, 0.15, 0.05])
    rows = np.tile(p * 0.4, (40_000, 1)).astype(np.float32)
    one = interactions(rows, per_user=1, choice=Choice.SAMPLE).toarray().mean(axis=0)
    np.testing.assert_allclose(one, p, atol=0.01)
    two = interactions(rows, per_user=2, choice=Choice.SAMPLE).toarray().mean(axis=0)
    second = [sum(p[i] * p[j] / (1 - p[i]) for i in range(4) if i != j) for j in range(4)]
    np.testing.assert_allclose(two, p + second, atol=0.01)


def test_as_many_as_a_real_user_has(summary: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(summary, tmp_path / "out", "--interactions", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["rows"], shown["synthetic_users"]) == ((BUDGET - 1) * USUAL + 3, BUDGET)
    assert pq.read_table(tmp_path / "out").num_rows == shown["rows"]
    exported(summary, tmp_path / "out", "--overwrite")
    assert f"rows for {BUDGET} synthetic users" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--format", "xlsx"], "'parquet', 'csv', 'inter', 'npz'"),
        (["--interactions", "--choose", "best"], "'top', 'sample'"),
        (["--interactions", "--per-user", "0"], "--per-user must lie in 1 … 60, the number of items; it is 0."),
        (["--interactions", "--per-user", "61"], "--per-user must lie in 1 … 60, the number of items; it is 61."),
        (["--per-user", "5"], "--per-user goes with --interactions."),
        (["--choose", "top"], "--choose goes with --interactions."),
    ],
)
def test_it_refuses_in_one_sentence(
    summary: Artefact, tmp_path: Path, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(summary.location), "--out", str(tmp_path / "out"), *options]) == 2
    assert_one_sentence(capsys, sentence)
    assert not list(tmp_path.iterdir())


def test_only_summaries_and_nothing_is_replaced_unasked(
    summary: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(source: object, out: Path, sentence: str, *options: str) -> None:
        assert main(["export", str(source), "--out", str(out), *options]) == 2
        assert_one_sentence(capsys, sentence)

    dataset = summary.location.parent / "dataset"
    refused(dataset, tmp_path / "out", "is a dataset, not a summary.")
    refused(tmp_path / "nothing", tmp_path / "out", "There is no summary at")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("mine")
    refused(summary.location, tmp_path / "out", "exists: choose another --out, or say --overwrite to replace it.")
    assert (tmp_path / "out").read_text() == "mine"
    refused(summary.location, tmp_path, "is a directory: --out must name a file.", "--overwrite")


def test_a_summary_that_does_not_count_its_users(
    summary: Artefact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(summary.location.path, tmp_path / "old")
    manifest = summary.manifest
    counts = {name: count for name, count in manifest.counts.items() if name != "training_users"}
    old = Manifest(Kind.SUMMARY, manifest.config, manifest.inputs, counts, manifest.files)
    (tmp_path / "old" / "manifest.json").write_bytes(old.to_json())
    command = ["export", str(tmp_path / "old"), "--out", str(tmp_path / "out"), "--interactions"]
    assert main(command) == 2
    assert_one_sentence(capsys, "was made from: give the interactions per user (--per-user).")
    assert main([*command, "--per-user", "3"]) == 0


@pytest.mark.parametrize("item", ["a\tb", 'a"b', "a\nb"])
def test_an_item_id_that_recbole_could_not_read(item: str) -> None:
    matrix = sp.csr_array(np.ones((1, 1), np.float32))
    with pytest.raises(InputError, match="which the format inter cannot say"):
        file_content(matrix, pa.array([item]), ExportFormat.INTER, with_weights=True)
    content, rows = file_content(matrix, pa.array([item]), ExportFormat.CSV, with_weights=False)
    assert list(csv.reader(content.to_pybytes().decode().splitlines(keepends=True)))[1:] == [["0", item]] and rows == 1
