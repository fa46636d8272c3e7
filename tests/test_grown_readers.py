"""Models on a dataset that has grown: as on the same users written in one go, and beside models of fewer items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from infrec.kernels.metrics import propensity_weights
from infrec.pipeline.cluster import Pool
from infrec.pipeline.data import Dataset, PerturbConfig, perturb_dataset
from infrec.pipeline.ingest import IngestConfig, Split, grow, ingest
from infrec.pipeline.ingest.growth.grow import Grown
from infrec.pipeline.models import load_recommender, open_model
from infrec.pipeline.serving import RecommendConfig, evaluate, recommend
from infrec.pipeline.storage import ArtefactWriter, InputError, Kind
from tests import oracles
from tests.builders import write_dataset, write_summary
from tests.distilling import CONFIG as DISTILL
from tests.distilling import summarise
from tests.matrices import taste_matrix
from tests.models import DEGREE, fit

CONFIG = IngestConfig(split=Split.STABLE, seed=3, bucket_rows=4000)
MODELS = {
    "popularity": {},
    "infinite-ae": {"lambdas": (5.0,), "exponents": DEGREE},
    "nystrom": {"landmarks": 60, "lambdas": (5.0,), "exponents": DEGREE},
    "ease": {"lambdas": (100.0,)},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grown-readers")


@pytest.fixture(scope="module")
def grown(cluster: object, folder: Path) -> Grown:
    """Two nights on top of 530 users and 76 items: 20 more users, 4 more items, and users of one interaction."""
    users, items = taste_matrix(550, 80, seed=1).nonzero()
    rng = np.random.default_rng(0)
    night = rng.choice(3, len(users), p=[0.9, 0.05, 0.05])
    night[(users >= 530) | (items >= 76)] = 2
    users, items, night = (np.concatenate(pair) for pair in (
        (users, np.arange(600, 700)), (items, rng.integers(76, size=100)), (night, rng.integers(3, size=100))
    ))  # fmt: skip
    for number in range(3):
        tonight = night == number
        table = pa.table({"user_id": users[tonight], "item_id": [f"i{item:02}" for item in items[tonight]]})
        pq.write_table(table, folder / f"log-{number}.parquet")
    dataset = ingest([str(folder / "log-0.parquet")], str(folder / "0"), CONFIG)
    for number in (1, 2):
        log, out, fresh = str(folder / f"log-{number}.parquet"), str(folder / str(number)), str(folder / f"f{number}")
        last = grow(dataset, [log], out, fresh, CONFIG)
        dataset = last.dataset
    return last


@pytest.fixture(scope="module")
def noisy(grown: Grown, folder: Path) -> Dataset:
    writer = ArtefactWriter(folder / "noisy", Kind.DATASET, purpose={})
    return perturb_dataset(grown.dataset, writer, PerturbConfig(noise=0.2, remove=0.1))


@pytest.fixture(scope="module")
def flat(grown: Grown, folder: Path) -> Dataset:
    """The same users and items without any additions."""
    everyone = grown.dataset.histories()
    return write_dataset(folder / "flat", everyone.train, everyone.validation, everyone.test, shards=1)


def test_some_users_have_nothing_to_train_on(grown: Grown) -> None:
    everyone = grown.dataset.histories()
    lengths = np.diff(everyone.train.indptr)
    assert np.count_nonzero(lengths == 0) > 5
    assert grown.dataset.num_users == 650


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_that_of_the_same_users_in_one_go(
    model: str, grown: Grown, flat: Dataset, noisy: Dataset, folder: Path, pool: Pool
) -> None:
    found = fit(model, grown.dataset, folder / f"{model}-grown", pool, **MODELS[model])
    expected = fit(model, flat, folder / f"{model}-flat", pool, **MODELS[model])
    metrics, of_flat = (
        evaluate(str(artefact.location), dataset, pool).metrics
        for artefact, dataset in ((found, grown.dataset), (expected, flat))
    )
    for name in ("HR@10", "nDCG@10", "nDCG@100", "PSP@10"):
        assert metrics[name] == pytest.approx(of_flat[name], abs=2.0 if model == "nystrom" else 0.1), name
    fresh = evaluate(str(found.location), grown.fresh, pool)
    assert fresh.users == grown.fresh.num_users > 50
    assert fresh.metrics["AUC"] > 0.6


def test_noise_is_added_to_all_that_users_gained(grown: Grown, noisy: Dataset) -> None:
    assert grown.dataset.has_additions and not noisy.has_additions
    before, after = grown.dataset.histories(), noisy.histories()
    assert after.user_ids.equals(before.user_ids)
    assert (after.test != before.test).nnz == 0
    np.testing.assert_array_equal(noisy.items()["train_count"].to_numpy(), after.train.toarray().sum(axis=0))
    assert noisy.manifest.counts["train"] == after.train.nnz


def test_a_summary_is_distilled_and_warm_started(grown: Grown, noisy: Dataset, folder: Path, pool: Pool) -> None:
    first = summarise(Dataset.open(str(folder / "0")), folder / "summary", pool)
    config = replace(DISTILL, steps=8)
    second = summarise(grown.dataset, folder / "warm", pool, config, warm_start=first)
    assert second.manifest.counts["new_items"] == 4
    earlier, later = (evaluate(str(each.location), grown.fresh, pool).metrics for each in (first, second))
    assert later["AUC"] > earlier["AUC"] > 0.5  # of new items the earlier one knows nothing


@pytest.mark.parametrize("model", ["popularity", "infinite-ae", "summary"])
def test_a_model_of_earlier_items_ranks_later_ones_last(
    model: str, grown: Grown, noisy: Dataset, folder: Path, pool: Pool
) -> None:
    before, dataset = Dataset.open(str(folder / "0")), grown.dataset
    if model == "summary":
        artefact = write_summary(folder / "given", before, before.training_matrix()[:30].toarray())
    else:
        artefact = fit(model, before, folder / f"{model}-before", pool, **MODELS[model])
    known = before.num_items
    assert known < dataset.num_items
    for data in (dataset, grown.fresh):
        everyone = data.histories()
        context = everyone.context("test")
        scores = np.full(context.shape, -np.inf, np.float32)
        scores[:, :known] = load_recommender(artefact).scores(sp.csr_array(context.toarray()[:, :known]))
        weights = propensity_weights(data.items()["train_count"].to_numpy())
        expected = oracles.average_metrics(scores, context.toarray(), everyone.test.toarray(), weights, 10)
        found = evaluate(str(artefact.location), data, pool).metrics
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=0.1), name


def test_only_evaluation_takes_a_model_of_earlier_items(
    grown: Grown, noisy: Dataset, folder: Path, tmp_path: Path, pool: Pool
) -> None:
    before = Dataset.open(str(folder / "0"))
    earlier = str(fit("popularity", before, tmp_path / "earlier", pool).location)
    later = str(fit("popularity", grown.dataset, tmp_path / "later", pool).location)
    writer = ArtefactWriter(tmp_path / "out", Kind.RECOMMENDATIONS, purpose={})
    with pytest.raises(InputError, match="knows other items than"):
        recommend(earlier, grown.dataset, writer, pool, RecommendConfig(k=3))
    with pytest.raises(InputError, match="knows other items than"):
        evaluate(later, before, pool)
    assert open_model(earlier, grown.dataset, earlier=True).manifest.counts["items"] == before.num_items
