"""The solver in files: killed and begun again, with damaged tiles, on a full disk: the same bytes."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import scipy.sparse as sp

from infrec.pipeline.cluster import Pool, ThreadPool
from infrec.pipeline.cluster.actors import PoolActor
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import VALIDATION, load_recommender
from infrec.pipeline.storage import Artefact
from tests.builders import taste_dataset, write_dataset
from tests.killing import titles_below
from tests.matrices import split_matrix, taste_matrix
from tests.models import NONE, checksums, fit
from tests.nodes import by_itself
from tests.patience import PATIENCE_SECONDS

CONFIG = {"lambdas": (1.0, 5.0), "exponents": NONE}
SECOND = "Tiles (p=0 q=0 λ=5)"
TILES = 10 + 10 + 6 + 10
"""The number of tiles of four tile rows: K, L, W below the diagonal, the inverse."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four tile rows of users, and more items than users."""
    return taste_dataset(tmp_path_factory.mktemp("tiled") / "data", 700, 720, seed=4)


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return fit("tiled", dataset, tmp_path_factory.mktemp("tiled") / "model", pool, **CONFIG)


class Progress:
    """A `Report` that keeps the first count of every phase: what was there when it began."""

    def __init__(self) -> None:
        self.began: dict[str, int] = {}

    def __call__(self, phase: str, done: int, total: int, detail: str = "") -> None:
        self.began.setdefault(phase, done)


def test_it_is_the_model_of_the_solver_in_memory(
    dataset: Dataset, undisturbed: Artefact, pool: Pool, tmp_path: Path
) -> None:
    in_memory = fit("infinite-ae", dataset, tmp_path / "model", pool, **CONFIG)
    context = dataset.histories().context("test")
    found, expected = (load_recommender(model).scores(context) for model in (undisturbed, in_memory))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    for name, value in in_memory.manifest.config.items():
        assert name in ("tile", "solver") or undisturbed.manifest.config[name] == value
    assert 0 < undisturbed.manifest.counts["residual"] < 1e-4


def test_this_process_writes_the_bytes_of_two_actors(dataset: Dataset, undisturbed: Artefact, tmp_path: Path) -> None:
    assert checksums(fit("tiled", dataset, tmp_path / "model", ThreadPool(), **CONFIG)) == checksums(undisturbed)


def test_a_killed_run_goes_on_with_the_tile_that_it_was_killed_in(
    dataset: Dataset, undisturbed: Artefact, pool: Pool, tmp_path: Path
) -> None:
    """The driver gets SIGKILL in the second of two systems; then one of its tiles is cut off and one is changed."""
    out = tmp_path / "model"
    killed = by_itself(fit_until_killed, str(dataset.artefact.location), str(out))
    killed.communicate(timeout=PATIENCE_SECONDS)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    left = list((tmp_path / ".model.partial").rglob("lambda-1/*/*.arrow"))
    gram = len(list((tmp_path / ".model.partial").rglob("gram/*.arrow")))
    assert (gram, len(left)) == (10, TILES // 2 - 10)
    *_, cut_off, changed = sorted((tmp_path / ".model.partial").rglob("lambda-1/factor/*.arrow"))
    os.truncate(cut_off, 1000)  # both are needed for others that are not made yet
    content = bytearray(changed.read_bytes())
    content[1000] ^= 1
    changed.write_bytes(content)

    progress = Progress()
    again = fit("tiled", dataset, out, pool, report=progress, **CONFIG)
    assert [phase for phase in progress.began if phase.startswith("Tiles")] == [SECOND]
    assert progress.began[SECOND] == gram + len(left) - 2
    assert again.manifest.fingerprint() == undisturbed.manifest.fingerprint()
    assert not (tmp_path / ".model.partial").exists()


def test_a_damaged_tile_of_the_best_so_far_is_made_again(
    dataset: Dataset, undisturbed: Artefact, pool: Pool, tmp_path: Path
) -> None:
    """Interrupted in the second candidate, of which the first one is the better; one of its tiles is cut off."""
    best = undisturbed.manifest.config["lambda"]
    config = {**CONFIG, "lambdas": (best, *(lam for lam in CONFIG["lambdas"] if lam != best))}

    def stop(phase: str, done: int, total: int, detail: object = "") -> None:
        if phase == "Candidates" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit("tiled", dataset, tmp_path / "model", pool, report=stop, **config)
    (tile, *_) = sorted((tmp_path / ".model.partial").rglob("lambda-0/inverse/*.arrow"))
    os.truncate(tile, 1000)
    again = fit("tiled", dataset, tmp_path / "model", pool, **config)
    tiles = {name: sum_ for name, sum_ in checksums(undisturbed).items() if name.startswith("dual")}
    assert tiles.items() <= checksums(again).items()
    assert np.isfinite(load_recommender(again).scores(dataset.histories().train[:3])).all()


def test_a_candidate_without_a_solution_is_left_out(pool: Pool, tmp_path: Path) -> None:
    """Users are there twice: without a ridge K is singular, which one actor finds out while others make tiles."""
    rows = taste_matrix(900, 60, seed=4).toarray()
    rows[300:600] = rows[:300]
    train, validation, test = (part.toarray() for part in split_matrix(sp.csr_array(rows), seed=4))
    held_out = np.arange(900) >= 600
    train[~held_out] = rows[~held_out]
    validation[~held_out] = test[~held_out] = 0
    alike = write_dataset(tmp_path / "data", *map(sp.csr_array, (train, validation, test)), held_out=held_out)
    model = fit("tiled", alike, tmp_path / "model", pool, lambdas=(0.0, 5.0), exponents=NONE)
    assert model.manifest.config["lambda"] == 5 and model.manifest.counts["candidates not positive definite"] == 1
    assert not (tmp_path / ".model.partial").exists()


def test_a_full_disk_publishes_nothing_and_keeps_what_is_finished(
    dataset: Dataset, undisturbed: Artefact, pool: Pool, tmp_path: Path
) -> None:
    limited: dict[psutil.Process, tuple[int, int]] = {}

    def fill(phase: str, done: int, total: int, detail: str = "") -> None:
        if phase.startswith("Tiles") and done == TILES // 2 and not limited:
            for actor in actors():
                limited[actor] = actor.rlimit(resource.RLIMIT_FSIZE)
                actor.rlimit(resource.RLIMIT_FSIZE, (1024, limited[actor][1]))

    try:
        with pytest.raises(OSError, match="File too large"):
            fit("tiled", dataset, tmp_path / "model", pool, report=fill, **CONFIG)
    finally:
        for actor, limits in limited.items():
            actor.rlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "model").exists()
    progress = Progress()
    again = fit("tiled", dataset, tmp_path / "model", pool, report=progress, **CONFIG)
    assert next(iter(progress.began.values())) >= TILES // 2
    assert again.manifest.fingerprint() == undisturbed.manifest.fingerprint()


def test_values_that_look_alike_are_candidates_of_their_own(dataset: Dataset, pool: Pool, tmp_path: Path) -> None:
    """And kernels that are alike: none may take another's files away."""
    lambdas, exponents = (5.0, 5.0000001), (NONE[0], NONE[0])
    model = fit("tiled", dataset, tmp_path / "model", pool, lambdas=lambdas, exponents=exponents)
    assert model.table(VALIDATION)["lambda"].to_pylist() == [*lambdas, *lambdas]
    assert np.isfinite(load_recommender(model).scores(dataset.histories().train[:3])).all()


def actors() -> list[psutil.Process]:
    return [process for process, title in titles_below().items() if PoolActor.__name__ in title]


def fit_until_killed(dataset: str, out: str) -> None:
    def kill(phase: str, done: int, total: int, detail: str = "") -> None:
        if phase == SECOND and done == TILES // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    fit("tiled", Dataset.open(dataset), Path(out), ThreadPool(), report=kill, **CONFIG)
