"""Fits and evaluations on several actors, on one, and on actors that are killed: the results are the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from infrec.kernels.normalisation import Exponents
from infrec.pipeline.cluster import Pool, Report, ThreadPool, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.serving import RecommendConfig, evaluate, recommend
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, Kind
from tests.builders import taste_dataset
from tests.killing import Kill, finished_parts
from tests.models import checksums, fit
from tests.nodes import by_itself

CONFIG = {"lambdas": (1.0, 5.0), "exponents": (Exponents(), Exponents(user=0.4, item=0.25))}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three tile rows of users, in six shards."""
    return taste_dataset(tmp_path_factory.mktemp("actors") / "data", 1100, 60, seed=4, shards=6)


@pytest.fixture(scope="module")
def model(dataset: Dataset, pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """Fitted by two actors that lived."""
    return fit("infinite-ae", dataset, tmp_path_factory.mktemp("actors") / "model", pool, **CONFIG)


def test_this_process_writes_the_bytes_of_two_actors(dataset: Dataset, model: Artefact, tmp_path: Path) -> None:
    assert checksums(fit("infinite-ae", dataset, tmp_path / "model", ThreadPool(), **CONFIG)) == checksums(model)


def test_a_killed_gram_actor_changes_nothing(dataset: Dataset, model: Artefact, pool: Pool, tmp_path: Path) -> None:
    """It dies at the first of two Gram matrices, so that the second needs the actor that takes its place."""
    kill = Kill("Gram rows")
    again = fit("infinite-ae", dataset, tmp_path / "model", pool, report=kill, **CONFIG)
    assert kill.killed
    assert again.manifest.fingerprint() == model.manifest.fingerprint()


def test_a_killed_scoring_actor_changes_nothing(dataset: Dataset, model: Artefact, pool: Pool) -> None:
    kill = Kill("Users evaluated")
    interrupted = evaluate(str(model.location), dataset, pool, report=kill)
    assert kill.killed
    progress: list[tuple[int, int]] = []
    whole = evaluate(
        str(model.location), dataset, pool, report=lambda phase, done, total: progress.append((done, total))
    )
    assert (interrupted.metrics, interrupted.users) == (whole.metrics, whole.users)
    assert progress == [(done, 1100) for done in (184, 368, 551, 734, 917, 1100)]


def test_killed_recommendations_keep_their_finished_parts(
    dataset: Dataset, model: Artefact, pool: Pool, tmp_path: Path
) -> None:
    """The driver gets SIGKILL after half of the parts; then one of them is cut off."""
    uris, out = (str(dataset.artefact.location), str(model.location)), tmp_path / "again"
    undisturbed = recommended(*uris, str(tmp_path / "out"), pool)
    killed = by_itself(recommend_until_killed, *uris, str(out))
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    left = finished_parts(out)
    assert len(left) == 3
    cut_short = tmp_path / ".again.partial" / min(left)
    os.truncate(cut_short, 1000)
    again = recommended(*uris, str(out), pool)
    assert again.manifest.fingerprint() == undisturbed.manifest.fingerprint()
    made_again = [name for name, written in left.items() if (out / name).stat().st_mtime_ns != written]
    assert made_again == [cut_short.name]


def recommended(dataset: str, model: str, out: str, pool: Pool, report: Report = silent) -> Artefact:
    with ArtefactWriter(out, Kind.RECOMMENDATIONS, purpose={}) as writer:
        return recommend(model, Dataset.open(dataset), writer, pool, RecommendConfig(k=10), report=report)


def recommend_until_killed(dataset: str, model: str, out: str) -> None:
    def kill(phase: str, done: int, total: int, detail: str = "") -> None:
        if done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    recommended(dataset, model, out, ThreadPool(), kill)


def touchy() -> type:
    """A worker that can say no. Made here, so that it travels to the actors by value."""

    class Touchy:
        def __init__(self, wrong: int) -> None:
            if wrong < 0:
                raise InputError(f"{wrong} is negative")

        def double(self, number: int) -> int:
            if number == 13:
                raise InputError("13 brings bad luck")
            return 2 * number

    return Touchy


def test_results_come_in_the_order_of_the_calls(pool: Pool) -> None:
    with pool.workers(touchy(), 1) as workers:
        assert list(workers.map("double", ((number,) for number in range(10)))) == list(range(0, 20, 2))
        assert list(workers.map("double", [])) == []


def test_what_a_worker_raises_is_raised_here(pool: Pool) -> None:
    with pool.workers(touchy(), 1) as workers, pytest.raises(InputError, match=r"^13 brings bad luck$"):
        list(workers.map("double", ((number,) for number in range(20))))


def test_a_worker_that_cannot_start_leaves_the_actors_to_others(pool: Pool) -> None:
    with pool.workers(touchy(), -1) as workers, pytest.raises(InputError, match="-1 is negative"):
        list(workers.map("double", [(1,)]))
    with pool.workers(touchy(), 1) as workers:
        assert list(workers.map("double", [(1,)])) == [2]


def test_two_kinds_of_workers_share_the_actors(pool: Pool) -> None:
    with pool.workers(touchy(), 1) as first, pool.workers(touchy(), 2) as second:
        for workers in (first, second, first):
            assert list(workers.map("double", [(1,), (2,), (3,)])) == [2, 4, 6]
