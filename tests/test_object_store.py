"""Logs and artefacts in an object store: a real S3 protocol server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem

from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster
from infrec.pipeline.data import Dataset
from infrec.pipeline.ingest import IngestConfig, Split, grow, ingest
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, Kind, Location, lock
from infrec.pipeline.storage.lock import Owner
from tests.matrices import taste_matrix
from tests.naive_ingest import as_naive


class Bucket:
    """A bucket and the addresses of what is in it."""

    def __init__(self, port: int) -> None:
        endpoint = f"127.0.0.1:{port}"
        self._query = f"?endpoint_override={endpoint}&scheme=http"
        self.filesystem = S3FileSystem(
            access_key="key", secret_key="secret", endpoint_override=endpoint, scheme="http",
            allow_bucket_creation=True,
        )  # fmt: skip
        self.filesystem.create_dir("lake")

    def uri(self, path: str) -> str:
        return f"s3://key:secret@lake/{path}{self._query}"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield Bucket(server.get_host_and_port()[1])
    server.stop()


def test_from_logs_to_recommendations(bucket: Bucket, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    users, items = taste_matrix(60, 40, seed=0, per_user=10).nonzero()
    for part, rows in enumerate((slice(None, 500), slice(500, None))):
        table = pa.table({"user_id": users[rows], "item_id": items[rows]})
        with bucket.filesystem.open_output_stream(f"lake/logs/day={part}/log.parquet") as sink:
            pq.write_table(table, sink)
    data, model, out = bucket.uri("data"), bucket.uri("model"), bucket.uri("out")
    assert main(["ingest", bucket.uri("logs"), "--out", data]) == 0
    assert main(["fit", data, "--out", model, "--model", "ease"]) == 0
    assert main(["evaluate", model, "--data", data]) == 0
    assert main(["recommend", model, "--data", data, "--k", "3", "--out", out]) == 0
    assert "s3://lake/out: 180 rows for 60 users" in capsys.readouterr().out
    assert main(["recommend", model, "--histories", bucket.uri("logs"), "--k", "3", "--out", bucket.uri("more")]) == 0
    assert "s3://lake/more: 180 rows for 60 users" in capsys.readouterr().out

    assert main(["fit", data, "--out", model, "--model", "popularity"]) == 2
    assert "s3://lake/model exists" in capsys.readouterr().err
    assert main(["fit", data, "--out", model, "--model", "popularity", "--overwrite"]) == 0
    assert Artefact.open(model, Kind.MODEL).manifest.config["model"] == "popularity"


def test_a_dataset_grows(bucket: Bucket, cluster: Cluster) -> None:
    for night, (users, items) in enumerate([([1, 1, 2], [10, 20, 10]), ([1, 3], [30, 10])]):
        with bucket.filesystem.open_output_stream(f"lake/nights/{night}.parquet") as sink:
            pq.write_table(pa.table({"user_id": users, "item_id": items}), sink)
    config = IngestConfig(split=Split.STABLE)
    first = ingest([bucket.uri("nights/0.parquet")], bucket.uri("small"), config)
    grow(first, [bucket.uri("nights/1.parquet")], bucket.uri("grown"), bucket.uri("fresh"), config)
    found = as_naive(Dataset.open(bucket.uri("grown")))
    assert {user: sorted(a + b + c) for user, (_, a, b, c) in found.histories.items()} == {
        1: [10, 20, 30],
        2: [10],
        3: [10],
    }
    assert Dataset.open(bucket.uri("fresh")).items()["item_id"].to_pylist() == [10, 20, 30]


def test_night_after_night(
    bucket: Bucket, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state in an object store: its lock is not that of a disk."""
    monkeypatch.setattr(lock, "_MOMENT_SECONDS", 0.1)
    users, items = taste_matrix(60, 40, seed=0).nonzero()
    command = ["resummarize", "--logs", bucket.uri("nightly"), "--state", bucket.uri("state")]
    command += ["--budget", "10", "--steps", "10", "--tolerance", "0.9"]
    for night in range(2):
        table = pa.table({"user_id": users[night::2], "item_id": items[night::2]})
        with bucket.filesystem.open_output_stream(f"lake/nightly/night-{night}.parquet") as sink:
            pq.write_table(table, sink)
        assert main(command) == 0
        assert f"s3://lake/state/versions/00000{night + 1} is published." in capsys.readouterr().out
    owner = Owner.this_process("living", 600)
    with bucket.filesystem.open_output_stream("lake/state/lock") as sink:
        sink.write(json.dumps(vars(owner)).encode())
    assert main(command) == 4
    assert "s3://lake/state is being changed by run living" in capsys.readouterr().err
    bucket.filesystem.delete_file("lake/state/lock")
    assert main(command) == 0
    assert main(["rollback", bucket.uri("state")]) == 0
    assert main(["history", bucket.uri("state"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown["current"] == "000001"
    assert [row["decision"] for row in shown["history"]] == ["published", "published", "rolled back"]
    assert not (Location.of(bucket.uri("state")) / "lock").exists()


def test_what_is_published_stays_until_its_successor_is_whole(bucket: Bucket) -> None:
    uri = bucket.uri("kept")
    _publish(ArtefactWriter(uri, Kind.MODEL, purpose={"run": 1}), b"first")

    writer = ArtefactWriter(uri, Kind.MODEL, purpose={"run": 2}, overwrite=True)
    writer.write("weights", b"second")  # and here the run is killed
    assert Artefact.open(uri, Kind.MODEL).read("weights").to_pybytes() == b"first"

    _publish(ArtefactWriter(uri, Kind.MODEL, purpose={"run": 2}, overwrite=True), b"second")
    assert Artefact.open(uri, Kind.MODEL).read("weights").to_pybytes() == b"second"
    assert not (Location.of(bucket.uri("")) / ".kept.partial").exists()


def test_a_publication_that_was_killed_is_repeated(bucket: Bucket) -> None:
    uri = bucket.uri("half")
    writer = ArtefactWriter(uri, Kind.MODEL, purpose={})
    (Location.of(uri) / "weights").write(b"copied, but the manifest is not there yet")
    with pytest.raises(InputError, match="is not a model"):
        Artefact.open(uri, Kind.MODEL)
    _publish(writer, b"whole")
    assert Artefact.open(uri, Kind.MODEL).read("weights").to_pybytes() == b"whole"


def test_what_is_not_ours_is_never_removed(bucket: Bucket) -> None:
    (Location.of(bucket.uri("precious")) / "data.txt").write(b"precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="exists"):
            ArtefactWriter(bucket.uri("precious"), Kind.MODEL, purpose={}, overwrite=overwrite)
    assert (Location.of(bucket.uri("precious")) / "data.txt").read().to_pybytes() == b"precious"


def _publish(writer: ArtefactWriter, content: bytes) -> None:
    writer.publish(config={}, inputs={}, counts={}, files={"weights": writer.write("weights", content)})
