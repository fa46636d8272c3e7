"""The same bytes from two actors, from one core, from threads, and from nodes that are lost in the middle of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infrec.kernels.normalisation import Exponents
from infrec.kernels.sampler import Sampler
from infrec.pipeline.cluster import Pool, Report, Work, in_ray_session, open_pool, ray_session, session, silent
from infrec.pipeline.data import Dataset, GenerateConfig, generate_log
from infrec.pipeline.distillation import BaselineConfig, DistillConfig, Method, summarise
from infrec.pipeline.ingest import IngestConfig, ingest
from infrec.pipeline.serving import evaluate
from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind
from infrec.pipeline.study.config import SweepConfig
from infrec.pipeline.study.placement import Share
from infrec.pipeline.study.run import sweep
from tests.builders import taste_dataset
from tests.models import DEGREE, NONE, checksums, fit
from tests.nodes import answer_of, by_itself, session_on_nodes
from tests.sweeps import metrics_of_trials, recommended

INGEST = IngestConfig(piece_rows=2000, bucket_rows=2500, k_core=3)
DISTILL = DistillConfig(
    budget=20, sampler=Sampler(draws=30), steps=24, batch=200, validate_every=8, checkpoint_every=4, accumulate=2
)
SWEEP = SweepConfig(
    budgets=(5,),
    methods=(Method.DISTILL_CF, Method.RANDOM_USERS),
    seeds=1,
    space={"steps": 8, "validate_every": 2, "draws": 20},
)
Job = Callable[[Path, Path, Any, Report], Artefact]
"""Makes an artefact of the log and the dataset in a folder, with a pool."""

LANDMARKS: dict[str, Any] = {"landmarks": 150, "candidates": 400, "judged_users": 500, "lambdas": (1.0, 5.0)}


def _model(model: str, **config: Any) -> Job:
    return lambda inputs, out, pool, report: fit(
        model, Dataset.open(inputs / "dataset"), out, pool, report=report, **config
    )


def _summary(config: DistillConfig | BaselineConfig) -> Job:
    def job(inputs: Path, out: Path, pool: Pool, report: Report) -> Artefact:
        writer = ArtefactWriter(out, Kind.SUMMARY, purpose={})
        return summarise(Dataset.open(inputs / "dataset"), writer, config, pool, report=report)

    return job


def _ingest(inputs: Path, out: Path, pool: Pool | None, report: Report) -> Artefact:
    return ingest([str(inputs / "log")], str(out), INGEST, report=report).artefact


def _sweep(inputs: Path, out: Path, pool: Pool | None, report: Report) -> Artefact:
    with ArtefactWriter(out, Kind.SWEEP, purpose={}) as writer:
        return sweep(Dataset.open(inputs / "dataset"), writer, SWEEP, Share(), report=report)[0]


BASELINE = BaselineConfig(method=Method.NYSTROM, budget=150, lambdas=(0.5, 5.0), parts=3)
JOBS: dict[str, Job] = {
    "ingest": _ingest,
    "exact": _model("infinite-ae", lambdas=(1.0, 5.0), exponents=(Exponents(), *DEGREE)),
    "tiled": _model("tiled", lambdas=(1.0, 5.0), exponents=NONE),
    "nystrom": _model("nystrom", exponents=DEGREE, **LANDMARKS),
    "distill-cf": _summary(DISTILL),
    "svp-cf": _summary(replace(BASELINE, method=Method.SVP_CF)),
    "landmarks": _summary(BASELINE),
    "sweep": _sweep,
}
WITHOUT_POOL = ("ingest", "sweep")
"""These start tasks of their own, which need the CPUs that a pool would hold."""

ONE_PROCESS = [job for job in JOBS if job != "sweep"]
PHASES = {
    "ingest": ("read rows", "gather users"),
    "tiled": ("Tiles (p=0 q=0 λ=5)",),
    "distill-cf": ("Steps",),
    "sweep": ("Trials",),
}
"""A node is lost in each of these phases: in Ray Data and in tasks, twice under actors, and under Tune."""


@pytest.fixture(scope="module")
def inputs(cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of eighteen pieces and some fifteen buckets; a dataset of several tile rows of users in six shards."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = GenerateConfig(rows=36_000, users=600, items=80, files=18, string_ids=True, dirt=0.05)
    generate_log(str(folder / "log"), rows)
    taste_dataset(folder / "dataset", 1100, 80, seed=5, shards=6)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("same-bytes")


@pytest.fixture(scope="module")
def others(inputs: Path, folder: Path) -> Iterator[dict[str, Future[str]]]:
    """The same jobs in three other processes, one after the other.

    They run on one core, with one actor; in threads, without Ray; and where nodes fail.
    """

    def elsewhere(name: str, make: Callable[[str, str], None], one_core: bool) -> str:
        return answer_of(by_itself(make, str(inputs), str(folder / name), one_core=one_core))

    with ThreadPoolExecutor(1) as meanwhile:
        yield {
            "one core": meanwhile.submit(elsewhere, "one core", make_on_one_core, True),
            "threads": meanwhile.submit(elsewhere, "threads", make_in_threads, False),
            "failing nodes": meanwhile.submit(elsewhere, "failing nodes", make_on_failing_nodes, False),
        }


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, folder: Path, others: object) -> dict[str, Artefact]:
    """The artefacts of two actors that nothing happens to."""
    return {job: JOBS[job](inputs, folder / job, pool, silent) for job, pool in _with_pools(JOBS)}


@pytest.fixture(scope="module")
def one_core(folder: Path, undisturbed: object, others: dict[str, Future[str]]) -> Path:
    others["one core"].result()
    return folder / "one core"


@pytest.fixture(scope="module")
def threads(folder: Path, undisturbed: object, others: dict[str, Future[str]]) -> Path:
    others["threads"].result()
    return folder / "threads"


@pytest.fixture(scope="module")
def lost(folder: Path, undisturbed: object, others: dict[str, Future[str]]) -> tuple[Path, dict[str, list[str]]]:
    """The folder that failing nodes have filled; job → the phases in which it lost one."""
    return folder / "failing nodes", json.loads(others["failing nodes"].result())


@pytest.mark.parametrize("job", ONE_PROCESS)
def test_one_actor_on_one_core(job: str, undisturbed: dict[str, Artefact], one_core: Path) -> None:
    _assert_same(Artefact.open(one_core / job, undisturbed[job].manifest.kind), undisturbed[job])


@pytest.mark.parametrize("job", ONE_PROCESS)
def test_threads_without_ray(job: str, undisturbed: dict[str, Artefact], threads: Path) -> None:
    _assert_same(Artefact.open(threads / job, undisturbed[job].manifest.kind), undisturbed[job])


def test_one_actor_and_threads_judge_alike(
    undisturbed: dict[str, Artefact], one_core: Path, threads: Path, inputs: Path, pool: Pool
) -> None:
    metrics = evaluate(str(undisturbed["exact"].location), Dataset.open(inputs / "dataset"), pool).metrics
    assert json.loads((one_core / "evaluation.json").read_text()) == metrics
    assert json.loads((threads / "evaluation.json").read_text()) == metrics


@pytest.mark.parametrize("job", PHASES)
def test_nodes_that_are_lost_and_replaced(
    job: str, undisturbed: dict[str, Artefact], lost: tuple[Path, dict[str, list[str]]]
) -> None:
    folder, phases = lost
    assert tuple(phases[job]) == PHASES[job]
    _assert_same(Artefact.open(folder / job, undisturbed[job].manifest.kind), undisturbed[job])


def _assert_same(found: Artefact, expected: Artefact) -> None:
    if expected.manifest.kind == Kind.SWEEP:  # it tells seconds, too
        assert {row["status"] for row in found.table("trials.parquet").to_pylist()} == {"done"}
        assert metrics_of_trials(found) == metrics_of_trials(expected)
        assert recommended(found) == recommended(expected)
        return
    assert checksums(found) == checksums(expected)
    assert found.manifest.fingerprint() == expected.manifest.fingerprint()


def _with_pools(jobs: Iterable[str]) -> Iterator[tuple[str, Pool | None]]:
    """The jobs with the pool that they share: actors take long to start."""
    for pooled, group in itertools.groupby(jobs, lambda job: job not in WITHOUT_POOL):
        with open_pool() if pooled else nullcontext() as pool:
            for job in group:
                yield job, pool


def make_on_one_core(inputs: str, folder: str) -> None:
    with ray_session(cpus=1) as cluster:
        assert cluster.cpus == 1
        _make_all(Path(inputs), Path(folder))


def make_in_threads(inputs: str, folder: str) -> None:
    with session(Work()):
        assert not in_ray_session()
        _make_all(Path(inputs), Path(folder))


def _make_all(inputs: Path, folder: Path) -> None:
    for job, pool in _with_pools(ONE_PROCESS):
        JOBS[job](inputs, folder / job, pool, silent)
    with open_pool() as pool:
        metrics = evaluate(str(folder / "exact"), Dataset.open(inputs / "dataset"), pool).metrics
    (folder / "evaluation.json").write_text(json.dumps(dict(metrics)))


def make_on_failing_nodes(inputs: str, folder: str) -> None:
    """Two nodes with a CPU each, of which one is lost, in the middle of each phase of a job's, while calls are in hand.

    Prints the phases.
    """
    lost: dict[str, list[str]] = {job: [] for job in PHASES}
    with session_on_nodes(2) as replace_one:
        for job, pool in _with_pools(PHASES):

            def lose_a_node(phase: str, done: int, total: int, detail: object = "", job: str = job) -> None:
                if phase in PHASES[job] and phase not in lost[job] and 0 < done < total and 3 * done >= total:
                    lost[job].append(phase)
                    replace_one()

            JOBS[job](Path(inputs), Path(folder) / job, pool, lose_a_node)
    print(json.dumps(lost))
