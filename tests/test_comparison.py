"""Distill-CF is compared with other methods. Each makes the summary that its name says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.bpr import importance
from infrec.pipeline.cluster import Pool
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import BaselineConfig, DistillConfig, Method, summarise
from infrec.pipeline.models import HISTORY, load_recommender, summary_matrix
from infrec.pipeline.models.summary import DUAL
from infrec.pipeline.serving import evaluate
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, Kind
from tests import oracles
from tests.builders import taste_dataset, write_dataset
from tests.matrices import split_matrix, taste_matrix

NETWORK = {"depth": 1, "w_std": math.sqrt(2), "b_std": 0.1}
COMPARED = [method for method in Method if method != Method.DISTILL_CF]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    folder = tmp_path_factory.mktemp("comparison")
    return {
        "weak": taste_dataset(folder / "weak", 400, 70, seed=1, shards=3),
        "strong": taste_dataset(folder / "strong", 300, 80, seed=3, held_out=0.3),
    }


def made(
    method: Method, dataset: Dataset, out: Path, pool: Pool, *, budget: int = 40, **options: Any
) -> tuple[Artefact, np.ndarray]:
    """The artefact and S."""
    writer = ArtefactWriter(out, Kind.SUMMARY, purpose={})
    summary = summarise(dataset, writer, BaselineConfig(method=method, budget=budget, **options), pool)
    return summary, summary_matrix(summary)


def train_of(dataset: Dataset) -> np.ndarray:
    dense: np.ndarray = dataset.training_matrix().toarray()
    return dense


def position(rows: np.ndarray, train: np.ndarray) -> list[int]:
    """Which training users these rows are."""
    return [int(np.flatnonzero((train == row).all(axis=1))[0]) for row in rows]


@pytest.mark.parametrize("data", ["weak", "strong"])
@pytest.mark.parametrize("method", COMPARED)
def test_every_method_makes_a_summary_that_recommends(
    data: str, method: Method, datasets: dict[str, Dataset], tmp_path: Path, pool: Pool
) -> None:
    dataset = datasets[data]
    summary, rows = made(method, dataset, tmp_path / "summary", pool)
    manifest, history = summary.manifest, summary.table(HISTORY).to_pylist()
    assert manifest.config["method"] == method
    assert manifest.counts["budget"] == len(rows)
    assert set(np.unique(rows)) <= {0, 1}
    assert (DUAL in manifest.files) == (method == Method.NYSTROM)
    best = max(history, key=lambda row: row["nDCG@10"])
    assert manifest.config["lambda"] == best["lambda"]

    evaluation = evaluate(str(summary.location), dataset, pool, part="validation")
    assert evaluation.metrics["nDCG@10"] == pytest.approx(best["nDCG@10"], abs=0.1)
    found = evaluate(str(summary.location), dataset, pool).metrics
    assert 0.55 < found["AUC"] < 1
    histories = dataset.histories()
    context, truth = histories.context("test"), histories.test.toarray()
    weights = np.ones(dataset.num_items)

    def metrics_of(scores: np.ndarray) -> dict[str, float]:
        return oracles.average_metrics(scores, context.toarray(), truth, weights, 10)

    luck = metrics_of(np.random.default_rng(0).random(truth.shape))
    everyone = max(
        metrics_of(oracles.infinite_ae_scores(train_of(dataset), context.toarray(), lam=lam))["nDCG@10"]
        for lam in (0.5, 2.0, 10.0)
    )
    assert 1.3 * luck["nDCG@10"] < found["nDCG@10"] < 1.1 * everyone


def test_one_function_makes_them_all(datasets: dict[str, Dataset], tmp_path: Path, pool: Pool) -> None:
    writer = ArtefactWriter(tmp_path / "summary", Kind.SUMMARY, purpose={})
    summary = summarise(datasets["weak"], writer, DistillConfig(budget=10, steps=2, batch=64), pool)
    assert summary.manifest.config["method"] == Method.DISTILL_CF
    with pytest.raises(InputError, match="distill-cf is configured by DistillConfig"):
        BaselineConfig(method=Method.DISTILL_CF)


@pytest.mark.parametrize("data", ["weak", "strong"])
def test_random_users_are_training_users(data: str, datasets: dict[str, Dataset], tmp_path: Path, pool: Pool) -> None:
    train = train_of(datasets[data])
    _, rows = made(Method.RANDOM_USERS, datasets[data], tmp_path / "a", pool)
    assert len(set(position(rows, train))) == len(rows) == 40
    _, again = made(Method.RANDOM_USERS, datasets[data], tmp_path / "b", pool)
    np.testing.assert_array_equal(rows, again)
    _, other = made(Method.RANDOM_USERS, datasets[data], tmp_path / "c", pool, seed=1)
    assert (rows != other).any()


def test_head_users_are_the_most_active(datasets: dict[str, Dataset], tmp_path: Path, pool: Pool) -> None:
    train = train_of(datasets["weak"])
    activity = train.sum(axis=1)
    _, rows = made(Method.HEAD_USERS, datasets["weak"], tmp_path / "summary", pool)
    expected = sorted(range(len(train)), key=lambda user: (-activity[user], user))[:40]
    assert position(rows, train) == sorted(expected)


def test_random_interactions_are_as_many_as_those_of_a_budget_of_users(
    datasets: dict[str, Dataset], tmp_path: Path, pool: Pool
) -> None:
    train = train_of(datasets["weak"])
    summary, rows = made(Method.RANDOM_INTERACTIONS, datasets["weak"], tmp_path / "summary", pool)
    assert rows.sum() == summary.manifest.counts["rows"] == round(40 * train.sum() / len(train))
    assert rows.any(axis=1).all()
    # Every row is part of a user's, in the order of the users
    user = -1
    for row in rows:
        user = next(later for later in range(user + 1, len(train)) if (train[later] >= row).all())


def test_svp_prefers_users_whose_items_are_unpredictable() -> None:
    """A fifth of the users choose their items by lot."""
    users, items = 500, 120
    matrix = taste_matrix(users, items, seed=6).toarray()
    rng = np.random.default_rng(0)
    moody = np.arange(users) % 5 == 0
    for user in np.flatnonzero(moody):
        matrix[user] = rng.permutation(matrix[user])
    matrix[1], matrix[2] = 0, np.eye(items)[3]  # nothing, or nothing that could be held out
    scores = importance(sp.csr_array(matrix), seed=0, on_epoch=lambda *_: None)
    chosen = np.argsort(-scores)[: moody.sum()]
    assert moody[chosen].mean() > 0.6
    assert set(np.argsort(-scores)[-2:]) == {1, 2}
    assert (scores[3:] >= 0).all() and (scores <= 1).all()


def test_nystrom_is_regression_on_the_landmarks(datasets: dict[str, Dataset], tmp_path: Path, pool: Pool) -> None:
    """By its definition, dense and in float64."""
    dataset = datasets["weak"]
    summary, landmarks = made(Method.NYSTROM, dataset, tmp_path / "summary", pool)
    train, context = train_of(dataset), dataset.histories().context("test")

    def kernel(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return oracles.ntk_matrix(rows, columns, **NETWORK).astype(np.float64)

    across = kernel(train, landmarks)
    ridge = summary.manifest.config["lambda"] * np.trace(kernel(train, train)) / len(train)
    beta = np.linalg.solve(across.T @ across + ridge * kernel(landmarks, landmarks), across.T @ train)
    expected = kernel(context.toarray(), landmarks) @ beta
    scores = load_recommender(summary).scores(context)
    np.testing.assert_allclose(scores, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("data", ["weak", "strong"])
def test_nystrom_with_all_users_is_the_exact_autoencoder(
    data: str, datasets: dict[str, Dataset], tmp_path: Path, pool: Pool
) -> None:
    dataset = datasets[data]
    train, context = train_of(dataset), dataset.histories().context("test")
    summary, _ = made(Method.NYSTROM, dataset, tmp_path / "summary", pool, budget=len(train), lambdas=(0.5,))
    expected = oracles.infinite_ae_scores(train, context.toarray(), lam=0.5)
    scores = load_recommender(summary).scores(context)
    np.testing.assert_allclose(scores, expected, atol=1e-3 * np.abs(expected).max())


def test_nystrom_stands_landmarks_with_the_same_history(tmp_path: Path, pool: Pool) -> None:
    train, validation, test = split_matrix(taste_matrix(60, 50, seed=2), seed=2)
    twice = [sp.csr_array(sp.vstack([part, part])) for part in (train, validation, test)]
    dataset = write_dataset(tmp_path / "data", *twice)
    summary, _ = made(Method.NYSTROM, dataset, tmp_path / "summary", pool, budget=120, lambdas=(0.0, 1.0))
    assert summary.manifest.counts["rank"] == 60
    assert summary.manifest.config["lambda"] == 1.0
    expected = oracles.infinite_ae_scores(train_of(dataset), train.toarray(), lam=1.0)
    np.testing.assert_allclose(load_recommender(summary).scores(train), expected, atol=1e-3 * np.abs(expected).max())


def test_a_lambda_without_a_solution_is_left_out(tmp_path: Path, pool: Pool) -> None:
    """Users with the same history: their kernel matrix is singular."""
    train, validation, test = split_matrix(taste_matrix(1, 50, seed=2), seed=2)
    same = [sp.csr_array(sp.vstack([part] * 30)) for part in (train, validation, test)]
    dataset = write_dataset(tmp_path / "data", *same)
    summary, _ = made(Method.HEAD_USERS, dataset, tmp_path / "summary", pool, budget=20, lambdas=(0.0, 1.0))
    assert [row["lambda"] for row in summary.table(HISTORY).to_pylist()] == [1.0]
    with pytest.raises(InputError, match=r"No λ of \(0\.0,\) has a finite solution: add a larger one\."):
        made(Method.HEAD_USERS, dataset, tmp_path / "none", pool, budget=20, lambdas=(0.0,))


@pytest.mark.parametrize("method", COMPARED)
def test_a_budget_above_the_number_of_users_is_refused(
    method: Method, datasets: dict[str, Dataset], tmp_path: Path, pool: Pool
) -> None:
    with pytest.raises(InputError, match=r"The budget must lie in 1 … 400, the number of training users; it is 401\."):
        made(method, datasets["weak"], tmp_path / "summary", pool, budget=401)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "The budget must be at least 1, it is 0"),
        ({"parts": 0}, "The number of parts must be at least 1, it is 0"),
        ({"lambdas": ()}, "λ must be"),
        ({"lambdas": (1.0, -1.0)}, "λ must be finite and not negative"),
        ({"select": "nDCG@11"}, "nDCG@11 is not a metric"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BaselineConfig(method=Method.HEAD_USERS, **wrong)
