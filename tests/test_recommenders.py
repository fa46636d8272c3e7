"""One suite that every recommender passes, on data that has something to be learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from infrec.kernels.metrics import propensity_weights
from infrec.pipeline.cluster import Pool
from infrec.pipeline.data import Dataset, Histories
from infrec.pipeline.models import (
    VALIDATION,
    EASEConfig,
    InfiniteAEConfig,
    LandmarkSampling,
    MFConfig,
    Nystrom,
    NystromConfig,
    load_recommender,
    open_model,
    plan_ease,
    plan_mf,
)
from infrec.pipeline.models.loading import MODELS, Recommender
from infrec.pipeline.models.mf import MF
from infrec.pipeline.models.nystrom import LANDMARKS
from infrec.pipeline.serving import RecommendConfig, evaluate, recommend
from infrec.pipeline.solvers import plan_exact, plan_nystrom
from infrec.pipeline.storage import MANIFEST, Artefact, ArtefactWriter, DoesNotFit, InputError, Kind
from tests import oracles
from tests.builders import taste_dataset
from tests.models import DEGREE, NONE, checksums, fit

DATASETS: dict[str, dict[str, Any]] = {
    "more users": {"users": 600, "items": 70, "seed": 1},
    "more items": {"users": 530, "items": 540, "seed": 2},
    "held-out users": {"users": 300, "items": 80, "seed": 3, "held_out": 0.3},
}
RANKS = 0.1
"""Percent of a metric, where float32 may rank two items that are all but equal otherwise than the oracle."""
GRID = (0.5, 5.0)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "infinite-ae": ("more users", "infinite-ae", {"lambdas": GRID, "exponents": NONE}),
    "infinite-ae degree": ("more users", "infinite-ae", {"lambdas": GRID, "exponents": DEGREE}),
    "infinite-ae wide": ("more items", "infinite-ae", {"lambdas": GRID, "exponents": NONE}),
    "infinite-ae wide degree": ("more items", "infinite-ae", {"lambdas": GRID, "exponents": DEGREE}),
    "infinite-ae held-out": (
        "held-out users",
        "infinite-ae",
        {"lambdas": (0.1, 2.0, 50.0), "exponents": DEGREE},
    ),
    "nystrom": ("more users", "nystrom", {"landmarks": 90, "lambdas": GRID, "exponents": NONE}),
    "nystrom degree": (
        "more items",
        "nystrom",
        {"landmarks": 60, "sampling": LandmarkSampling.UNIFORM, "lambdas": GRID, "exponents": DEGREE},
    ),
    "nystrom held-out": (
        "held-out users",
        "nystrom",
        {"landmarks": 80, "sampling": LandmarkSampling.RPCHOLESKY, "lambdas": (0.1, 2.0, 50.0), "exponents": DEGREE},
    ),
    "infinite-ae tiled": ("more users", "tiled", {"lambdas": GRID, "exponents": DEGREE}),
    "infinite-ae tiled held-out": ("held-out users", "tiled", {"lambdas": (0.1, 2.0), "exponents": DEGREE}),
    "ease": ("more users", "ease", {"lambdas": (1.0, 100.0)}),
    "ease held-out": ("held-out users", "ease", {"lambdas": (1.0, 100.0)}),
    "mf": ("more users", "mf", {"factors": (8,), "lambdas": (1.0, 10.0)}),
    "mf held-out": ("held-out users", "mf", {"factors": (8,), "alphas": (5.0,), "lambdas": (1.0, 10.0)}),
    "popularity": ("more users", "popularity", {}),
}
CLOSED_FORM = [name for name in CASES if name.split()[0] in ("infinite-ae", "nystrom", "ease")]
ONE_OF_EACH = [
    "infinite-ae wide degree",
    "infinite-ae tiled",
    "nystrom degree",
    "ease held-out",
    "mf held-out",
    "popularity",
]
EVALUATED = [*ONE_OF_EACH, "infinite-ae", "infinite-ae held-out", "nystrom", "nystrom held-out", "ease"]


@dataclass(frozen=True)
class Fitted:
    dataset: Dataset
    histories: Histories
    artefact: Artefact

    @property
    def uri(self) -> str:
        return str(self.artefact.location)

    @property
    def model(self) -> Recommender:
        return load_recommender(Artefact.open(self.uri, Kind.MODEL))

    @property
    def train(self) -> np.ndarray:
        return self.dataset.training_matrix().toarray().astype(float)

    def oracle(self, context: sp.csr_array, parameters: dict[str, float]) -> np.ndarray:
        """The scores that a model with these hyper-parameters should give."""
        dense = context.toarray().astype(float)
        if self.artefact.manifest.config["model"] == "popularity":
            return np.tile(self.train.sum(axis=0), (len(dense), 1))
        if self.artefact.manifest.config["model"] == "ease":
            return dense @ oracles.ease_weights(self.train, parameters["lambda"])
        if isinstance(self.model, MF):
            return oracles.mf_scores(self.model.items, dense, lam=parameters["lambda"], alpha=parameters["alpha"])
        if isinstance(self.model, Nystrom):
            landmarks = np.zeros((self.artefact.manifest.counts["landmarks"], dense.shape[1]))
            for row, landmark in zip(landmarks, self.artefact.table(LANDMARKS).to_pylist(), strict=True):
                row[landmark["items"]] = landmark["weights"]
            lam, p, q = parameters["lambda"], parameters["p"], parameters["q"]
            return oracles.nystrom_scores(self.train, dense, landmarks, lam=lam, p=p, q=q)
        lam, p, q = parameters["lambda"], parameters["p"], parameters["q"]
        return oracles.infinite_ae_scores(self.train, dense, lam=lam, p=p, q=q)

    def metrics_of(self, scores: np.ndarray, context: sp.csr_array, truth: np.ndarray) -> dict[str, float]:
        weights = propensity_weights(self.dataset.items()["train_count"].to_numpy())
        return oracles.average_metrics(scores.astype(np.float32), context.toarray(), truth, weights, 10)

    @property
    def chosen(self) -> dict[str, float]:
        config = self.artefact.manifest.config
        exponents = config.get("exponents", {"user": 0, "item": 0})
        chosen = {"lambda": config.get("lambda", 0), "p": exponents["user"], "q": exponents["item"]}
        return {**chosen, "alpha": config.get("alpha", 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recommenders")


@pytest.fixture(scope="module")
def datasets(folder: Path) -> dict[str, Dataset]:
    return {name: taste_dataset(folder / name, **shape) for name, shape in DATASETS.items()}


@pytest.fixture(scope="module", params=CASES)
def fitted(request: pytest.FixtureRequest, folder: Path, datasets: dict[str, Dataset], pool: Pool) -> Fitted:
    data, model, config = CASES[request.param]
    dataset = datasets[data]
    return Fitted(dataset, dataset.histories(), fit(model, dataset, folder / request.param, pool, **config))


def only(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fitted", names, indirect=True, scope="module")


def test_scores_are_those_of_the_dense_oracle(fitted: Fitted) -> None:
    """Scores of training users, of held-out users and of one without any history, by the model as it was published."""
    context = fitted.histories.context("test")[:40]
    assert context[[0]].nnz == 0
    scores = fitted.model.scores(context)
    assert scores.dtype == np.float32
    assert scores.shape == context.shape
    expected = fitted.oracle(context, fitted.chosen)
    np.testing.assert_allclose(scores, expected, atol=2e-4 * np.abs(expected).max())


@only(EVALUATED)
def test_evaluation_is_that_of_the_oracle_and_beats_popularity(fitted: Fitted, pool: Pool) -> None:
    truth, context = fitted.histories.test.toarray(), fitted.histories.context("test")
    found = evaluate(fitted.uri, fitted.dataset, pool)
    expected = fitted.metrics_of(fitted.oracle(context, fitted.chosen), context, truth)
    for name, value in expected.items():
        assert found.metrics[name] == pytest.approx(value, abs=RANKS), name
    assert found.users == np.count_nonzero(truth.any(axis=1))
    assert found.users + found.skipped == fitted.dataset.num_users
    assert 0.5 < found.metrics["AUC"] <= 1
    if fitted.artefact.manifest.config["model"] != "popularity":
        counts = np.tile(fitted.train.sum(axis=0), (len(truth), 1))
        assert found.metrics["nDCG@10"] > 1.2 * fitted.metrics_of(counts, context, truth)["nDCG@10"]


@only(["infinite-ae wide degree", "popularity"])
def test_recommends_unseen_items_best_first(fitted: Fitted, tmp_path: Path, pool: Pool) -> None:
    k = 7
    writer = ArtefactWriter(tmp_path / "recommendations", Kind.RECOMMENDATIONS, purpose={})
    published = recommend(fitted.uri, fitted.dataset, writer, pool, RecommendConfig(k=k))
    table = pa.concat_tables([published.table(name) for name in sorted(published.manifest.files)])
    assert table.schema.names == ["user_id", "rank", "item_id", "score"]
    users = fitted.dataset.num_users
    assert table.num_rows == published.manifest.counts["rows"] == k * users
    user_ids, ranks = (table[name].to_numpy().reshape(users, k) for name in ("user_id", "rank"))
    np.testing.assert_array_equal(user_ids, np.repeat(1000 + np.arange(users)[:, None], k, axis=1))
    np.testing.assert_array_equal(ranks, np.tile(np.arange(1, k + 1), (users, 1)))
    items = np.array([int(item[1:]) for item in table["item_id"].to_pylist()]).reshape(users, k)
    scores = table["score"].to_numpy().reshape(users, k)
    history = fitted.histories.context("test") + fitted.histories.test
    seen = history.toarray() > 0
    assert (np.diff(scores, axis=1) <= 0).all()
    assert not np.take_along_axis(seen, items, axis=1).any()
    assert all(len(set(row)) == k for row in items.tolist())
    unseen = np.where(seen, -np.inf, fitted.model.scores(sp.csr_array(history)))
    np.testing.assert_allclose(scores, -np.sort(-unseen, axis=1)[:, :k], rtol=1e-4, atol=1e-5)


@only(CLOSED_FORM)
def test_every_candidate_is_judged_as_by_the_oracle_and_the_best_is_kept(fitted: Fitted) -> None:
    """The users that judge may be held out, or their own rows may have been trained on."""
    trials = fitted.artefact.table(VALIDATION).to_pylist()
    context, truth = fitted.histories.train, fitted.histories.validation.toarray()
    assert len(trials) > 1
    for trial in trials:
        scores = fitted.oracle(context, {"p": 0, "q": 0, **trial})
        for name, value in fitted.metrics_of(scores, context, truth).items():
            assert trial[name] == pytest.approx(value, abs=RANKS), name
    best = max(trials, key=lambda trial: trial["nDCG@10"])
    assert fitted.chosen["lambda"] == best["lambda"]


@only(["infinite-ae wide degree"])
def test_a_changed_byte_is_refused_with_the_name_of_the_file(fitted: Fitted, tmp_path: Path, pool: Pool) -> None:
    """By whoever reads the file: this process, or the actors that evaluate."""
    copy = tmp_path / "model"
    copy.mkdir()
    for name in [*fitted.artefact.manifest.files, MANIFEST]:
        (copy / name).write_bytes((fitted.artefact.location / name).read().to_pybytes())
    damaged = copy / max(copy.iterdir(), key=lambda path: path.stat().st_size).name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=f"{damaged.name} is damaged"):
        load_recommender(Artefact.open(str(copy), Kind.MODEL)).scores(fitted.histories.train[:2])
    with pytest.raises(InputError, match=f"{damaged.name} is damaged"):
        evaluate(str(copy), fitted.dataset, pool)


def test_what_does_not_fit_is_refused_with_the_numbers(datasets: dict[str, Dataset]) -> None:
    numbers = r"needs \d+\.\d\d GB \(.*\), the memory limit is 0\.10 GB: raise the limit"
    for plan in (
        plan_exact(datasets["more users"], InfiniteAEConfig()),
        plan_nystrom(datasets["more users"], NystromConfig(landmarks=100)),
        plan_ease(datasets["more users"], EASEConfig()),
        plan_mf(datasets["more users"], MFConfig()),
    ):
        plan.require(plan.peak)
        plan.require(None)
        with pytest.raises(DoesNotFit, match=numbers):
            plan.require(100_000_000)


def test_a_choice_among_candidates_costs_the_memory_to_keep_one(datasets: dict[str, Dataset]) -> None:
    fixed = InfiniteAEConfig(lambdas=(5.0,), exponents=NONE)
    searched = InfiniteAEConfig(lambdas=(1.0, 5.0), exponents=NONE)
    dataset = datasets["more users"]
    assert plan_exact(dataset, fixed).peak < plan_exact(dataset, searched).peak


@pytest.mark.parametrize("config", [InfiniteAEConfig, NystromConfig, EASEConfig, MFConfig])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lambdas": (1.0, -1.0)}, "λ must be finite and not negative"),
        ({"lambdas": (float("nan"),)}, "λ must be finite"),
        ({"lambdas": (float("inf"),)}, "λ must be finite"),
        ({"lambdas": ()}, "λ must be"),
        ({"select": "nDCG@11"}, "nDCG@11 is not a metric: there are .*nDCG@10"),
    ],
)
def test_wrong_options_are_refused(config: type, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**wrong)


def test_a_lambda_of_zero_is_left_out_where_it_means_nothing(
    datasets: dict[str, Dataset], tmp_path: Path, pool: Pool
) -> None:
    lambdas, exponents = (0.0, 5.0), (NONE[0], NONE[0])
    model = fit("infinite-ae", datasets["more users"], tmp_path / "a", pool, lambdas=lambdas, exponents=exponents)
    assert [trial["lambda"] for trial in model.table(VALIDATION).to_pylist()] == [5.0, 5.0]


@pytest.mark.parametrize("name", DATASETS)
def test_a_search_ends_with_what_its_best_candidate_is_alone(
    name: str, datasets: dict[str, Dataset], tmp_path: Path, pool: Pool
) -> None:
    """Candidates are made in the memory of those that were beaten, never in that of the best."""
    found = fit("infinite-ae", datasets[name], tmp_path / "search", pool, lambdas=(1e4, 2.0, 1e5, 1e6), exponents=NONE)
    lam = found.manifest.config["lambda"]
    assert lam == 2.0
    alone = fit("infinite-ae", datasets[name], tmp_path / "alone", pool, lambdas=(lam,), exponents=NONE)
    assert {**checksums(found), VALIDATION: ""} == {**checksums(alone), VALIDATION: ""}
    assert found.manifest.counts["residual"] == alone.manifest.counts["residual"]


def test_no_candidate_can_be_solved(datasets: dict[str, Dataset], tmp_path: Path, pool: Pool) -> None:
    """More items than users with different histories: without a ridge the items' Gram matrix is singular."""
    with pytest.raises(InputError, match=r"No λ of \(0\.0,\) is positive definite in float32"):
        fit("ease", datasets["more items"], tmp_path / "model", pool, lambdas=(0.0,))


def test_a_model_of_other_items_is_refused(datasets: dict[str, Dataset], tmp_path: Path, pool: Pool) -> None:
    model = fit("popularity", datasets["more items"], tmp_path / "model", pool)
    assert checksums(open_model(str(model.location), datasets["more items"])) == checksums(model)
    with pytest.raises(InputError, match="knows other items"):
        evaluate(str(model.location), datasets["more users"], pool)
    assert set(MODELS) == {"infinite-ae", "nystrom", "ease", "mf", "popularity", "summary"}
