"""A few users of a dataset, read from one shard after another: they are the rows of the whole matrix."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import Dataset
from pipeline.distillation.rows_on_disk import TrainingRows
from pipeline.distillation.users import PartWorker
from tests.builders import taste_dataset

PARTS = 3


@pytest.fixture(scope="module", params=["weak", "strong"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    held_out = 0.3 if request.param == "strong" else 0.0
    folder = tmp_path_factory.mktemp("rows") / "data"
    return taste_dataset(folder, 200, 60, seed=2, held_out=held_out, shards=4)


def test_parts_are_everyone_once_and_alike_in_size(dataset: Dataset) -> None:
    for parts in (1, PARTS, 250):
        cuts = [dataset.part(index, parts) for index in range(parts)]
        sizes = [sum(len(cut) for cut in part) for part in cuts]
        assert max(sizes) - min(sizes) <= 1
        ids = [dataset.table(cut, ["user_id"])["user_id"].to_pylist() for part in cuts for cut in part]
        assert list(chain.from_iterable(ids)) == dataset.histories().user_ids.to_pylist()


def test_chosen_rows_are_those_of_the_training_matrix(dataset: Dataset) -> None:
    train = dataset.training_matrix()
    assert dataset.training_sizes().tolist() == np.diff(train.indptr).tolist()
    chosen = np.random.default_rng(0).choice(train.shape[0], 40, replace=False)
    np.testing.assert_array_equal(dataset.training_rows(chosen).toarray(), train[chosen].toarray())


def test_rows_in_a_file_are_those_of_the_training_matrix(dataset: Dataset) -> None:
    parts = [TrainingRows(dataset, dataset.part(index, PARTS)) for index in range(PARTS)]
    found = np.concatenate([rows[np.arange(len(rows))].toarray() for rows in parts])
    train = dataset.training_matrix().toarray()
    np.testing.assert_array_equal(found, train)
    some = np.array([2, 3, 17])
    np.testing.assert_array_equal(parts[0][some].toarray(), train[some])


def test_the_file_has_no_name(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a process that is killed leaves nothing behind."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = TrainingRows(dataset, dataset.part(0, 1))
    assert not list(tmp_path.iterdir())
    assert len(rows) == dataset.num_training_users


def test_a_sample_judges_as_many_users_as_it_says(dataset: Dataset) -> None:
    """Drawn from all parts alike, by the seed; and all of them where there are no more."""
    train, truth = dataset.histories().train.toarray(), dataset.histories().validation.toarray()
    judging = {tuple(row) for row in np.hstack([train, truth])[truth.any(axis=1)]}

    def judged(most: int, seed: int) -> list[tuple[float, ...]]:
        worker = PartWorker(dataset, PARTS, most, seed)
        blocks = [block for part in range(PARTS) for block in worker.judged_blocks(part)]
        return [tuple(row) for block in blocks for row in np.hstack([block.context.toarray(), block.truth.toarray()])]

    assert set(judged(10_000, seed=0)) == judging
    some = judged(30, seed=0)
    assert len(some) == len(set(some)) == 30
    assert set(some) < judging
    assert judged(30, seed=0) == some != judged(30, seed=1)
