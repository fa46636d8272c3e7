"""Distill-CF begins with a summary of before: at a warm start, or at a restart within a run."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from infrec.kernels.inner_regression import InnerStep
from infrec.pipeline.cluster import Pool
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import Labels
from infrec.pipeline.distillation.initial import first_logits, initial_logits, restarted_logits
from infrec.pipeline.distillation.warm_start import WarmStart
from infrec.pipeline.models import HISTORY, summary_matrix
from infrec.pipeline.storage import Artefact, InputError
from tests.builders import taste_dataset
from tests.distilling import CONFIG, summarise


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return taste_dataset(tmp_path_factory.mktemp("warm-start") / "data", 500, 80, seed=5, shards=3)


@pytest.fixture(scope="module")
def summary(dataset: Dataset, pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The summary that the others begin with."""
    return summarise(dataset, tmp_path_factory.mktemp("warm-start") / "summary", pool)


def test_a_warm_start_draws_about_the_weights_of_the_summary(dataset: Dataset, summary: Artefact) -> None:
    logits = WarmStart.of(summary, dataset, np.arange(80), CONFIG).logits
    inner = InnerStep(sampler=CONFIG.sampler, ntk=CONFIG.ntk, sharpness=1.0, seed=3)
    drawn = np.mean([inner.summary(logits, step) for step in range(20)], axis=0)
    assert np.corrcoef(drawn.ravel(), summary_matrix(summary).ravel())[0, 1] > 0.9


def test_a_warm_start_begins_where_the_summary_ended(
    dataset: Dataset, summary: Artefact, pool: Pool, tmp_path: Path
) -> None:
    config = replace(CONFIG, steps=4, validate_every=4, learning_rate=0.01, labels=Labels.OWN)
    cold, warm = (
        summarise(dataset, tmp_path / name, pool, config, warm_start=start).table(HISTORY).to_pylist()[-1]["nDCG@10"]
        for name, start in (("cold", None), ("warm", summary))
    )
    assert warm > 1.1 * cold


def test_a_refreshed_warm_start_begins_half_way(dataset: Dataset, summary: Artefact) -> None:
    config, items = replace(CONFIG, refresh=0.5, seed=9), np.arange(20, 60)
    start = WarmStart.of(summary, dataset, items, config)
    half_way = (start.logits + initial_logits(dataset, config, items)) / 2
    np.testing.assert_allclose(first_logits(dataset, config, items, start), half_way, atol=1e-5)


def test_steps_begin_anew_as_long_as_that_helps(dataset: Dataset, pool: Pool, tmp_path: Path) -> None:
    """A restart whose steps find nothing better is the last one. The progress never exceeds its total."""
    config = replace(CONFIG, steps=8, validate_every=4, restarts=50, learning_rate=0.02, labels=Labels.OWN)
    progress: list[tuple[int, int]] = []

    def report(phase: str, done: int, total: int, detail: object = "") -> None:
        if phase == "Steps":
            progress.append((done, total))

    history = summarise(dataset, tmp_path / "summary", pool, config, report=report).table(HISTORY).to_pylist()
    assert progress[:9] == [*((step, 8) for step in range(1, 9)), (9, 12)]
    assert progress[-1] == (history[-1]["step"], history[-1]["step"])
    assert [row["step"] for row in history] == list(range(4, 4 * len(history) + 1, 4))
    rounds = [history[:2], *([row] for row in history[2:])]
    best = [max(row["nDCG@10"] for row in rows) for rows in rounds]
    assert 1 < len(best) < 51
    assert all(later > earlier for earlier, later in pairwise(best[:-1]))
    assert best[-1] <= best[-2]


def test_a_restart_is_half_way_to_other_users(dataset: Dataset, summary: Artefact) -> None:
    rows, items = summary_matrix(summary), np.arange(80)
    known = WarmStart.of(summary, dataset, items, CONFIG).logits
    first, second = (2 * restarted_logits(dataset, CONFIG, items, rows, restart) - known for restart in (1, 2))
    for cold, other in ((first, second), (second, initial_logits(dataset, CONFIG, items))):
        assert cold.min() >= -1e-4 and cold.max() <= 1 + 1e-4  # means of users, and of other users each time
        assert np.abs(cold - other).max() > 0.1


def test_new_items_of_a_warm_start_begin_cold(dataset: Dataset, summary: Artefact, pool: Pool, tmp_path: Path) -> None:
    other = taste_dataset(tmp_path / "grown", 100, 90, seed=6)
    config = replace(CONFIG, steps=1, batch=50, accumulate=1)
    grown = summarise(other, tmp_path / "summary", pool, config, warm_start=summary)
    assert {name: grown.manifest.counts[name] for name in ("new_items", "items_gone")} == {
        "new_items": 10,
        "items_gone": 0,
    }
    assert grown.manifest.inputs["warm_start"] == summary.manifest.fingerprint()
    known, logits = (WarmStart.of(summary, data, np.arange(data.num_items), config).logits for data in (dataset, other))
    np.testing.assert_array_equal(logits[:, :80], known)
    assert (logits[:, 80:] == 0).all()
    shrunk = summarise(
        taste_dataset(tmp_path / "shrunk", 100, 70, seed=6), tmp_path / "less", pool, config, warm_start=summary
    )
    assert shrunk.manifest.counts["items_gone"] == 10


def test_a_warm_start_of_another_budget_is_refused(
    dataset: Dataset, summary: Artefact, pool: Pool, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="has a budget of 20, the new one has 21"):
        summarise(dataset, tmp_path / "summary", pool, replace(CONFIG, budget=21), warm_start=summary)
