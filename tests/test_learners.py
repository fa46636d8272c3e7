"""EASE and matrix factorisation, trained on the synthetic users of a summary and judged by the real ones."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares

from infrec.jobs.cli import main
from infrec.kernels.tiles import one_blas_thread
from infrec.pipeline.cluster import Cluster
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import VALIDATION, load_recommender
from infrec.pipeline.models.mf import MF
from infrec.pipeline.serving import Learner, Lesson
from infrec.pipeline.serving.learners import ease_lambdas
from infrec.pipeline.storage import Artefact
from tests import oracles
from tests.builders import taste_dataset, write_dataset, write_summary
from tests.sentence import assert_one_sentence

USERS, ITEMS, BUDGET = 300, 64, 60


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return taste_dataset(tmp_path_factory.mktemp("learners") / "dataset", USERS, ITEMS, seed=5)


@pytest.fixture(scope="module")
def weights(dataset: Dataset) -> np.ndarray:
    """Real users, as a sampler at a high temperature shows them: a little more weight where they have an item."""
    users = np.random.default_rng(0).choice(np.arange(1, USERS), BUDGET, replace=False)
    rows = dataset.training_matrix()[users].toarray()
    return (0.05 + 0.01 * rows + 0.001 * np.random.default_rng(1).random(rows.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def summary(dataset: Dataset, weights: np.ndarray) -> Artefact:
    return write_summary(Path(dataset.artefact.location.parent.path) / "summary", dataset, weights)


@pytest.fixture(scope="module")
def noise(dataset: Dataset, weights: np.ndarray) -> Artefact:
    """The same weights, on items that they have nothing to do with."""
    rows = np.random.default_rng(2).permuted(weights, axis=1)
    return write_summary(Path(dataset.artefact.location.parent.path) / "noise", dataset, rows)


def test_ease_on_the_weights_is_the_dense_regression(dataset: Dataset, weights: np.ndarray, summary: Artefact) -> None:
    lesson = Lesson.of(str(summary.location), dataset, Learner.EASE, seed=0)
    np.testing.assert_array_equal(lesson.rows.toarray(), weights)
    with lesson.fitted() as model:
        trials, lam = model.table(VALIDATION).to_pylist(), model.manifest.config["lambda"]
        context = dataset.histories().context("test")[:40]
        scores = load_recommender(model).scores(context)
    assert [trial["lambda"] for trial in trials] == list(ease_lambdas(weights))
    assert lam == max(trials, key=lambda trial: trial["nDCG@10"])["lambda"]
    expected = context.toarray() @ oracles.ease_weights(weights.astype(np.float64), lam)
    np.testing.assert_allclose(scores, expected, atol=1e-3 * np.abs(expected).max())


def test_the_grid_of_ease_follows_the_spread_of_the_weights(weights: np.ndarray) -> None:
    grid = np.array(ease_lambdas(weights))
    np.testing.assert_allclose(ease_lambdas(2 * weights), 4 * grid, rtol=1e-5)
    np.testing.assert_allclose(ease_lambdas(weights + 3), grid, rtol=1e-3)
    np.testing.assert_allclose(ease_lambdas(np.vstack([weights, weights])), 2 * grid, rtol=1e-5)
    assert min(ease_lambdas(weights[:1])) > 0


def test_mf_is_trained_on_the_eighth_of_the_items_that_weighs_most(
    dataset: Dataset, weights: np.ndarray, summary: Artefact
) -> None:
    rows = Lesson.of(str(summary.location), dataset, Learner.MF, seed=0).rows.toarray()
    assert rows.sum(axis=1).tolist() == [ITEMS // 8] * BUDGET
    assert (np.where(rows, weights, np.inf).min(axis=1) >= np.where(rows, 0, weights).max(axis=1)).all()


@pytest.mark.parametrize("alpha", [1.0, 7.0])
def test_mf_folds_users_in_as_the_formula_and_the_library_do(dataset: Dataset, alpha: float) -> None:
    train, context = dataset.training_matrix(), dataset.histories().context("test")[:50]
    assert context[[0]].nnz == 0
    with one_blas_thread:
        library = AlternatingLeastSquares(factors=6, regularization=3.0, alpha=alpha, random_state=0, num_threads=1)
        library.fit(sp.csr_matrix(train), show_progress=False)
        users = library.recalculate_user(np.arange(50), sp.csr_matrix(context))
    items = np.asarray(library.item_factors)
    scores = MF(items, 3.0, alpha).scores(context)
    assert scores.dtype == np.float32
    expected = oracles.mf_scores(items, context.toarray(), lam=3.0, alpha=alpha)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_allclose(scores, users @ items.T, atol=1e-4)


@pytest.mark.parametrize("learner", ["ease", "mf"])
def test_a_learner_on_summaries_is_judged_by_the_real_users(
    dataset: Dataset,
    summary: Artefact,
    noise: Artefact,
    cluster: Cluster,
    learner: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(summary.location.parent.path)
    before = sorted(folder.iterdir())
    command = ["evaluate", str(summary.location), str(noise.location), "--data", str(dataset.artefact.location)]
    assert main([*command, "--learner", learner, "--json"]) == 0
    learned, floor = json.loads(capsys.readouterr().out)["evaluations"]
    assert learned["learner"] == learner and learned["lambda"] > 0
    assert learned["metrics"]["nDCG@10"] > 1.5 * floor["metrics"]["nDCG@10"]
    assert learned["users"] + learned["skipped"] == USERS
    assert sorted(folder.iterdir()) == before


def test_a_table_says_what_was_trained(
    dataset: Dataset, summary: Artefact, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(summary.location), "--data", str(dataset.artefact.location)]
    assert main([*command, "--learner", "ease", "--part", "validation"]) == 0
    printed = capsys.readouterr().out
    assert "ease trained on each summary" in printed
    assert f"{summary.location}: ease, lambda " in printed
    assert main(command) == 0
    assert "trained" not in capsys.readouterr().out


def test_it_refuses_in_one_sentence(
    dataset: Dataset,
    summary: Artefact,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, given = str(dataset.artefact.location), str(summary.location)

    def refused(sentence: str, *arguments: str) -> None:
        assert main(["evaluate", *arguments]) == 2
        assert_one_sentence(capsys, sentence)

    refused("'infinite-ae', 'ease', 'mf'", given, "--data", data, "--learner", "oracle")
    refused("--memory-limit goes with a --learner that is trained here", given, "--data", data, "--memory-limit", "1GB")
    limited = ["--learner", "ease", "--memory-limit", "1MB"]
    refused("the memory limit is 0.00 GB: raise the limit", given, "--data", data, *limited)
    model = str(tmp_path / "model")
    assert main(["fit", data, "--model", "popularity", "--out", model]) == 0
    capsys.readouterr()
    refused("the learner ease is trained on summaries (--learner).", given, model, "--data", data, "--learner", "ease")
    other = sp.csr_array(np.ones((3, 2), np.float32))
    write_dataset(tmp_path / "other", other, other, other)
    refused("knows other items than", given, "--data", str(tmp_path / "other"), "--learner", "mf")

    found = importlib.util.find_spec
    monkeypatch.setattr("infrec.pipeline.models.mf.find_spec", lambda name: None if name == "implicit" else found(name))
    refused("pip install 'infrec[mf]'.", given, "--data", data, "--learner", "mf")
    assert main(["fit", data, "--model", "mf", "--out", str(tmp_path / "mf")]) == 2
    assert "pip install 'infrec[mf]'." in capsys.readouterr().err
