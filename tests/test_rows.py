"""A few users of a dataset, read from one shard after another: they are the rows of the whole matrix."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import scipy.sparse as sp

from infrec.pipeline.cluster import Cluster
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation.part_worker import PartWorker
from infrec.pipeline.distillation.rows import SharedRows, TrainingRows
from tests.builders import taste_dataset, write_dataset
from tests.matrices import taste_matrix

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


@pytest.mark.parametrize("kind", [TrainingRows, SharedRows])
def test_rows_out_of_memory_are_those_of_the_training_matrix(
    kind: type[TrainingRows] | type[SharedRows], dataset: Dataset, cluster: Cluster
) -> None:
    source = dataset.shared() if kind is SharedRows else dataset
    parts = [kind(source, dataset.part(index, PARTS)) for index in range(PARTS)]
    assert sum(len(rows) for rows in parts) == dataset.num_training_users
    found = np.concatenate([rows[np.arange(len(rows))].toarray() for rows in parts])
    train = dataset.training_matrix().toarray()
    np.testing.assert_array_equal(found, train)
    assert kind(source, dataset.part(249, 250))[np.arange(0)].shape == (0, dataset.num_items)
    some = np.array([2, 3, 17])
    np.testing.assert_array_equal(parts[0][some].toarray(), train[some])


def test_a_shared_dataset_is_the_same(dataset: Dataset, cluster: Cluster) -> None:
    shared, chosen = dataset.shared(), np.array([5, 3, 70])
    assert shared.histories().user_ids.equals(dataset.histories().user_ids)
    for mine, theirs in [
        (shared.training_matrix(), dataset.training_matrix()),
        (shared.training_rows(chosen), dataset.training_rows(chosen)),
        (shared.shard(2).validation, dataset.shard(2).validation),
    ]:
        np.testing.assert_array_equal(mine.toarray(), theirs.toarray())
    assert [shared.table(cut, ["test"]) for cut in shared.slices(30)] == [
        dataset.table(cut, ["test"]) for cut in dataset.slices(30)
    ]


def test_a_process_has_no_copy_of_a_shared_dataset(cluster: Cluster, tmp_path: Path) -> None:
    train = taste_matrix(3000, 500, seed=0, per_user=100)
    nothing = sp.csr_array(train.shape, dtype=np.float32)
    dataset = write_dataset(tmp_path / "data", train, nothing, nothing)

    def copied(dataset: Dataset) -> int:
        before = pa.total_allocated_bytes()
        rows = SharedRows(dataset, dataset.part(0, 1)) if dataset.in_store else None
        table = dataset.shard_table(0)
        assert len(table) == 1500 and (rows is None or len(rows) == 3000)
        return int(pa.total_allocated_bytes() - before)

    task = ray.remote(copied)
    alone, together = ray.get([task.remote(dataset), task.remote(dataset.shared())])
    assert alone > 400_000 and together < alone / 50


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
