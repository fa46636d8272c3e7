"""The synthetic log: size and dirt as asked for, the same bytes every time, a taste that can be learned."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster, ray_session
from infrec.pipeline.data import Dataset, GenerateConfig, generate_log
from infrec.pipeline.storage import Artefact, InputError
from tests.killing import finished_parts
from tests.nodes import by_itself

pytestmark = pytest.mark.usefixtures("cluster")


def whole(log: Artefact) -> pa.Table:
    return pa.concat_tables([log.table(name) for name in log.manifest.files])


def test_size_columns_and_files(tmp_path: Path) -> None:
    log = generate_log(str(tmp_path / "log"), GenerateConfig(rows=10_007, users=300, items=50, files=4))
    table = whole(log)
    assert len(log.manifest.files) == 4
    assert log.manifest.counts == {"rows": 10_007, "synthetic": True}
    assert table.schema.types == [pa.int64(), pa.int64(), pa.float32(), pa.int64()]
    assert len(table) == 10_007
    assert sum(column.null_count for column in table.columns) == 0
    assert set(table["user_id"].to_pylist()) <= set(range(300))
    assert set(table["rating"].to_pylist()) == {1, 2, 3, 4, 5}
    per_item = np.sort(np.bincount(table["item_id"].to_numpy(), minlength=50))
    assert per_item[-1] > 4 * np.median(per_item), "the tail is long"


def test_the_same_configuration_gives_the_same_bytes(tmp_path: Path) -> None:
    config = GenerateConfig(rows=5000, users=100, items=50, files=3, string_ids=True, dirt=0.1)
    first, second = (generate_log(str(tmp_path / name), config).manifest.fingerprint() for name in "ab")
    assert first == second
    other = GenerateConfig(rows=5000, users=100, items=50, files=3, string_ids=True, dirt=0.1, seed=1)
    assert generate_log(str(tmp_path / "c"), other).manifest.fingerprint() != first


def test_dirt_is_found_by_ingest(tmp_path: Path) -> None:
    config = GenerateConfig(rows=40_000, users=5000, items=50, string_ids=True, dirt=0.2)
    table = whole(generate_log(str(tmp_path / "log"), config))
    assert table["user_id"].type == pa.string()
    assert pc.min(table["user_id"]).as_py().startswith("user-0")
    nulls = table["user_id"].null_count + table["item_id"].null_count
    nans = pc.sum(pc.is_nan(table["rating"])).as_py()
    assert nulls + nans == pytest.approx(40_000 * 0.2 * 3 / 4, rel=0.1)
    assert main(["ingest", str(tmp_path / "log"), "--out", str(tmp_path / "dataset")]) == 0
    dropped = Dataset.open(tmp_path / "dataset").manifest.counts["dropped"]
    assert dropped["without user"] + dropped["without item"] <= nulls  # rows without both count once
    assert dropped["rating missing or not finite"] == pytest.approx(nans, rel=0.1)


TWELVE_FILES = GenerateConfig(rows=20_000, users=100, items=50, files=12, string_ids=True)


def test_a_killed_run_keeps_its_finished_files(cluster: Cluster, tmp_path: Path) -> None:
    """The driver gets SIGKILL after half of the files; then one of them is cut off."""
    undisturbed = generate_log(str(tmp_path / "undisturbed"), TWELVE_FILES).manifest.fingerprint()
    out = tmp_path / "log"
    killed = by_itself(generate_until_killed, str(out), joins=True)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    left = finished_parts(out)
    assert len(left) >= 6
    cut_short = tmp_path / ".log.partial" / min(left)
    os.truncate(cut_short, cut_short.stat().st_size - 10)
    assert generate_log(str(out), TWELVE_FILES).manifest.fingerprint() == undisturbed
    made_again = [name for name, written in left.items() if (out / name).stat().st_mtime_ns != written]
    assert made_again == [cut_short.name]


def generate_until_killed(out: str) -> None:
    def kill(phase: str, done: int, total: int) -> None:
        if done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    with ray_session():
        generate_log(out, TWELVE_FILES, report=kill)


def test_an_infinite_autoencoder_learns_the_taste(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "log")
    assert main(["generate", "--out", out, "--rows", "60_000", "--users", "1_000", "--items", "400"]) == 0
    dataset, models = str(tmp_path / "dataset"), []
    assert main(["ingest", out, "--out", dataset]) == 0
    for name, options in (("popularity", []), ("infinite-ae", ["--normalize", "none", "--lambda", "5"])):
        models.append(str(tmp_path / name))
        assert main(["fit", dataset, "--model", name, *options, "--out", models[-1]]) == 0
    capsys.readouterr()
    assert main(["evaluate", *models, "--data", dataset, "--json"]) == 0
    evaluations = json.loads(capsys.readouterr().out)["evaluations"]
    popularity, learned = (evaluation["metrics"]["nDCG@10"] for evaluation in evaluations)
    assert learned > 1.3 * popularity


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rows": 0}, "The number of rows must be at least 1"),
        ({"users": 0}, "The number of users must be at least 1"),
        ({"dirt": 1.0}, "The dirt must be a fraction"),
        ({"files": 101}, "The number of files must be between 1 and the number of rows"),
    ],
)
def test_sizes_that_make_no_log(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        GenerateConfig(**{"rows": 100, "users": 10, "items": 10, **options})
