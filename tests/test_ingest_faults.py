"""Ingest killed and started again, and on a full disk: the same bytes."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from infrec.pipeline.cluster import Cluster, ray_session
from infrec.pipeline.data import GenerateConfig, generate_log
from infrec.pipeline.ingest import IngestConfig, ingest
from tests.killing import titles_below
from tests.nodes import by_itself
from tests.patience import PATIENCE_SECONDS

CONFIG = IngestConfig(piece_rows=700, bucket_rows=900, k_core=3)
PASSES = ("read rows", "gather users", "write shards")


@pytest.fixture(scope="module")
def log(cluster: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    """36,000 rows in 52 files, each of which is one part; forty buckets."""
    out = str(tmp_path_factory.mktemp("faults") / "log")
    generate_log(out, GenerateConfig(rows=36_000, users=600, items=80, files=52, string_ids=True, dirt=0.05))
    return out


@pytest.fixture(scope="module")
def undisturbed(log: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return ingest([log], str(tmp_path_factory.mktemp("faults") / "out"), CONFIG).manifest.fingerprint()


def parts_on_disk(out: Path) -> dict[str, int]:
    """The finished parts of an unfinished run and when each was written.

    Of two files that belong together the second makes the part a finished one: rows follow items, and a receipt follows
    its file.
    """
    staging = out.parent / f".{out.name}.partial"
    rows = [*staging.glob("_work/rows-*.arrow")]
    items = [file.with_name(file.name.replace("rows", "items")) for file in rows]
    others = [*staging.glob("_work/codes-*.arrow"), *staging.glob("_work/histories-*.arrow")]
    users = [staging / receipt.stem for receipt in staging.glob("_work/users-*.parquet.json")]
    return {file.name: file.stat().st_mtime_ns for file in (*rows, *items, *others, *users)}


@pytest.mark.parametrize("of_pass", ["rows", "users"])
def test_a_killed_run_goes_on_where_it_stopped(
    log: str, undisturbed: str, cluster: Cluster, tmp_path: Path, of_pass: str
) -> None:
    """The driver gets SIGKILL in the first and in the last pass; no part that it had finished is computed twice."""
    out = tmp_path / "out"
    run = by_itself(ingest_by_itself, log, str(out), joins=True)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sum(name.startswith(of_pass) for name in parts_on_disk(out)) < 5:
        assert run.poll() is None, "the run was over before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert not out.exists()
    before, last = parts_on_disk(out), {}

    def watch(phase: str, done: int, total: int) -> None:
        last.update(parts_on_disk(out))

    again = ingest([log], str(out), CONFIG, report=watch)
    assert [name for name, written in before.items() if last[name] != written] == []
    assert len(last) > len(before)
    assert again.manifest.fingerprint() == undisturbed


@pytest.mark.parametrize("phase", PASSES)
def test_a_full_disk_publishes_nothing_and_keeps_what_is_finished(
    log: str, undisturbed: str, tmp_path: Path, phase: str
) -> None:
    """No worker may write a file beyond a kilobyte after the first report of a pass."""
    limited: dict[psutil.Process, tuple[int, int]] = {}

    def fill(current: str, done: int, total: int) -> None:
        if current == phase and not limited:
            for worker in workers():
                with suppress(psutil.NoSuchProcess):
                    limited[worker] = worker.rlimit(resource.RLIMIT_FSIZE)
                    worker.rlimit(resource.RLIMIT_FSIZE, (1024, limited[worker][1]))

    out = tmp_path / "out"
    try:
        with pytest.raises(OSError, match="File too large"):
            ingest([log], str(out), CONFIG, report=fill)
    finally:
        for worker, limits in limited.items():
            with suppress(psutil.NoSuchProcess):
                worker.rlimit(resource.RLIMIT_FSIZE, limits)
    assert not out.exists()
    before = parts_on_disk(out)
    again = ingest([log], str(out), CONFIG)
    assert bool(before) == (phase != PASSES[0])
    assert again.manifest.fingerprint() == undisturbed


def workers() -> list[psutil.Process]:
    """The processes in which tasks run."""
    titles = titles_below()
    return [process for process, title in titles.items() if title.startswith("ray::") and "Agent" not in title]


def ingest_by_itself(log: str, out: str) -> None:
    with ray_session():
        ingest([log], out, CONFIG)
