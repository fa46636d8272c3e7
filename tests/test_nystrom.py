"""`--solver nystrom`: landmarks and judges as they were asked for, and the same bytes whoever computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.normalisation import Exponents
from infrec.pipeline.cluster import Pool
from infrec.pipeline.data import Dataset, csr_of
from infrec.pipeline.models import VALIDATION, LandmarkSampling, load_recommender
from infrec.pipeline.models.nystrom import LANDMARKS
from infrec.pipeline.solvers import normal_equations
from infrec.pipeline.storage import Artefact, InputError, read_tensors
from tests import oracles
from tests.builders import taste_dataset, write_dataset
from tests.killing import Kill
from tests.matrices import split_matrix, taste_matrix
from tests.models import DEGREE, NONE, fit

CONFIG = {
    "landmarks": 150,
    "candidates": 400,
    "judged_users": 500,
    "lambdas": (1.0, 5.0),
    "exponents": (Exponents(), *DEGREE),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six shards, and so six shares."""
    return taste_dataset(tmp_path_factory.mktemp("nystrom") / "data", 1100, 60, seed=4, shards=6)


@pytest.fixture(scope="module")
def model(dataset: Dataset, pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """Fitted by two actors that lived."""
    return fit("nystrom", dataset, tmp_path_factory.mktemp("nystrom") / "model", pool, **CONFIG)


@pytest.mark.parametrize("phase", ["Shards counted", "Normal equations"])
def test_a_killed_actor_changes_nothing(
    dataset: Dataset, model: Artefact, pool: Pool, tmp_path: Path, phase: str
) -> None:
    kill = Kill(phase)
    again = fit("nystrom", dataset, tmp_path / "model", pool, report=kill, **CONFIG)
    assert kill.killed
    assert again.manifest.fingerprint() == model.manifest.fingerprint()


def test_strips_of_items_change_nothing(
    dataset: Dataset, model: Artefact, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large catalogue is solved strip by strip, and β lies in as many files."""
    monkeypatch.setattr(normal_equations, "STRIP_ENTRIES", 150 * 17)
    in_strips = fit("nystrom", dataset, tmp_path / "model", pool, **CONFIG)
    whole, strips = (list(read_tensors(each, "dual")) for each in (model, in_strips))
    assert [dual.shape for dual in whole] == [(150, 60)]
    assert [dual.shape[1] for dual in strips] == [17, 17, 17, 9]
    np.testing.assert_allclose(np.hstack(strips), whole[0], rtol=1e-4, atol=1e-6 * np.abs(whole[0]).max())
    context = dataset.histories().context("test")
    scores = [load_recommender(each).scores(context) for each in (in_strips, model)]
    np.testing.assert_allclose(*scores, atol=1e-5 * np.abs(scores[0]).max())
    assert in_strips.manifest.config["lambda"] == model.manifest.config["lambda"]


def test_a_sample_judges_and_everyone_where_it_is_large_enough(
    dataset: Dataset, model: Artefact, pool: Pool, tmp_path: Path
) -> None:
    assert model.manifest.counts["judged_users"] == 500
    everyone = fit("nystrom", dataset, tmp_path / "all", pool, **{**CONFIG, "judged_users": 10_000})
    judges = np.count_nonzero(np.diff(dataset.histories().validation.indptr))
    assert everyone.manifest.counts["judged_users"] == judges
    sample, whole = (each.table(VALIDATION).to_pylist() for each in (model, everyone))
    for one, other in zip(sample, whole, strict=True):
        assert one["nDCG@10"] != other["nDCG@10"]
        assert one["nDCG@10"] == pytest.approx(other["nDCG@10"], rel=0.15)


@pytest.mark.parametrize("sampling", [LandmarkSampling.UNIFORM, LandmarkSampling.RPCHOLESKY])
def test_landmarks_are_users(dataset: Dataset, pool: Pool, tmp_path: Path, sampling: LandmarkSampling) -> None:
    options = {"landmarks": 50, "sampling": sampling, "candidates": 100, "lambdas": (5.0,), "exponents": NONE}
    train = {tuple(row) for row in dataset.training_matrix().toarray()}
    models = [fit("nystrom", dataset, tmp_path / f"{seed}", pool, seed=seed, **options) for seed in (0, 1)]
    chosen = [csr_of(model.table(LANDMARKS)["items"], dataset.num_items).toarray() for model in models]
    for rows in chosen:
        assert len(rows) == 50
        assert {tuple(row) for row in rows} <= train
    assert not np.array_equal(*chosen)


def test_held_out_users_are_neither_landmarks_nor_trained_on(tmp_path: Path, pool: Pool) -> None:
    """All that may train are landmarks: the exact ∞-AE of the training users, judged by the others."""
    dataset = taste_dataset(tmp_path / "data", 300, 80, seed=3, held_out=0.3, shards=3)
    train = dataset.training_matrix().toarray()
    model = fit(
        "nystrom",
        dataset,
        tmp_path / "model",
        pool,
        landmarks=len(train),
        sampling=LandmarkSampling.UNIFORM,
        lambdas=(0.5,),
        exponents=DEGREE,
    )
    histories = dataset.histories()
    context = histories.context("test")[histories.held_out]
    expected = oracles.infinite_ae_scores(train.astype(float), context.toarray(), lam=0.5, p=0.4, q=0.25)
    scores = load_recommender(model).scores(context)
    np.testing.assert_allclose(scores, expected, atol=1e-3 * np.abs(expected).max())
    assert model.manifest.counts["judged_users"] == np.count_nonzero(np.diff(histories.validation.indptr))


@pytest.mark.parametrize("sampling", list(LandmarkSampling))
def test_landmarks_with_the_same_history(tmp_path: Path, pool: Pool, sampling: LandmarkSampling) -> None:
    """Everyone is there twice and a landmark: half of the directions are left out, the model is the exact one."""
    train, validation, test = split_matrix(taste_matrix(60, 50, seed=2), seed=2)
    twice = [sp.csr_array(sp.vstack([part, part])) for part in (train, validation, test)]
    dataset = write_dataset(tmp_path / "data", *twice)
    options = {"landmarks": 120, "sampling": sampling, "lambdas": (0.0, 1.0), "exponents": NONE}
    model = fit("nystrom", dataset, tmp_path / "model", pool, **options)
    assert model.manifest.counts["rank"] == 60
    assert model.manifest.config["lambda"] == 1.0
    expected = oracles.infinite_ae_scores(twice[0].toarray().astype(float), train.toarray(), lam=1.0)
    np.testing.assert_allclose(load_recommender(model).scores(train), expected, atol=1e-3 * np.abs(expected).max())


def test_refusals(dataset: Dataset, tmp_path: Path, pool: Pool) -> None:
    with pytest.raises(
        InputError, match=r"of landmarks must lie in 1 … 1,100, the number of training users; it is 1,101"
    ):
        fit("nystrom", dataset, tmp_path / "model", pool, landmarks=1101)
    train, validation, test = split_matrix(taste_matrix(40, 50, seed=2), seed=2)
    mute = write_dataset(tmp_path / "mute", train, sp.csr_array(validation.shape, dtype=np.float32), test)
    with pytest.raises(InputError, match="has no validation interactions to choose λ on"):
        fit("nystrom", mute, tmp_path / "model", pool, landmarks=10)
