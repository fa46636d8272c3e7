"""Datasets with noise in them: what is added, what is taken away, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.jobs.cli import main
from infrec.pipeline.data import PARTS, Dataset, PerturbConfig, perturb_dataset, shard_name
from infrec.pipeline.storage import ArtefactWriter, InputError, Kind
from tests.builders import taste_dataset, write_dataset
from tests.models import checksums
from tests.sentence import assert_one_sentence

pytestmark = pytest.mark.usefixtures("cluster")

Perturb = Callable[..., Dataset]


@pytest.fixture
def perturbed(tmp_path: Path) -> Perturb:
    def made(dataset: Dataset, name: str = "noisy", **config: float) -> Dataset:
        writer = ArtefactWriter(tmp_path / name, Kind.DATASET, purpose=config)
        perturb_dataset(dataset, writer, PerturbConfig(**config))
        return Dataset.open(str(tmp_path / name))

    return made


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return taste_dataset(tmp_path_factory.mktemp("perturb") / "data", 400, 150, seed=1, shards=3, held_out=0.2)


def dense(dataset: Dataset) -> dict[str, np.ndarray]:
    histories = dataset.histories()
    return {part: getattr(histories, part).toarray().astype(bool) for part in PARTS}


def test_false_interactions_are_added_and_true_ones_removed(dataset: Dataset, perturbed: Perturb) -> None:
    noisy = perturbed(dataset, noise=0.3, remove=0.25, seed=7)
    before, after = dense(dataset), dense(noisy)
    touched = before["train"] | before["validation"] | before["test"]
    added, removed = after["train"] & ~before["train"], before["train"] & ~after["train"]
    trained = ~dataset.histories().held_out
    assert not (added & touched).any()
    assert not added[~trained].any() and not removed[~trained].any()
    counts = before["train"].sum(axis=1)[trained]
    for change, rate in ((added, 0.3), (removed, 0.25)):
        changes = change.sum(axis=1)[trained]
        assert (np.abs(changes - rate * counts) < 1).all()  # one or the other of the whole numbers beside it
        assert changes.sum() == pytest.approx(rate * counts.sum(), rel=0.02)
    assert noisy.manifest.counts["added"] == added.sum()
    assert noisy.manifest.counts["removed"] == removed.sum()


def test_the_rest_stays(dataset: Dataset, perturbed: Perturb) -> None:
    noisy = perturbed(dataset, noise=0.5)
    for index in range(dataset.num_shards):
        before, after = (data.artefact.table(shard_name(index)) for data in (dataset, noisy))
        assert before.schema.equals(after.schema)
        assert before.drop_columns("train").equals(after.drop_columns("train"))
        assert after.num_rows and not before["train"].equals(after["train"])
    items = noisy.items()
    assert items.schema.equals(dataset.items().schema)
    assert items["item_id"].equals(dataset.items()["item_id"])
    train = noisy.training_matrix()
    assert train.has_sorted_indices
    np.testing.assert_array_equal(items["train_count"].to_numpy(), train.toarray().sum(axis=0))
    counts = noisy.manifest.counts
    assert counts["train"] == train.nnz
    assert counts == {**dataset.manifest.counts, **{name: counts[name] for name in ("train", "added", "removed")}}
    assert noisy.manifest.inputs == {"dataset": dataset.manifest.fingerprint()}
    assert noisy.manifest.config == {"noise": 0.5, "remove": 0.0, "seed": 0}


def test_the_seed_decides(dataset: Dataset, perturbed: Perturb) -> None:
    one, same, other = (
        perturbed(dataset, name, noise=0.1, remove=0.1, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one.manifest == same.manifest
    assert not set(checksums(one.artefact).values()) & set(checksums(other.artefact).values())
    nothing = perturbed(dataset, "d", noise=0.0)
    for index in range(dataset.num_shards):
        before, after = (data.artefact.table(shard_name(index)) for data in (dataset, nothing))
        assert before.equals(after)


def test_false_items_are_uniform_among_the_untouched(tmp_path: Path, perturbed: Perturb) -> None:
    """Everyone has the even ones of 40 items in some part, so that each odd one is added to about a fifth of them."""
    users, items = 3000, 40
    row = np.arange(items) % 8
    parts = [np.tile(chosen, (users, 1)).astype(np.float32) for chosen in ((row == 0) | (row == 2), row == 4, row == 6)]
    noisy = perturbed(write_dataset(tmp_path / "data", *map(sp.csr_array, parts)), noise=0.4)
    added = noisy.items()["train_count"].to_numpy()[1::2]
    assert added.sum() == 4 * users
    np.testing.assert_allclose(added, users / 5, atol=5 * np.sqrt(users * 0.2 * 0.8))


def test_histories_that_leave_no_room(tmp_path: Path, perturbed: Perturb) -> None:
    """Users may have nearly all items, all, one or none."""
    train = np.zeros((4, 10), np.float32)
    train[0, :9] = train[1] = train[2, 4] = 1
    nothing = sp.csr_array((4, 10), dtype=np.float32)
    noisy = perturbed(write_dataset(tmp_path / "data", sp.csr_array(train), nothing, nothing), noise=1, remove=0.99)
    after = dense(noisy)["train"]
    assert after[0, 9]
    assert after.sum(axis=1).tolist()[1:] == [1, 2, 0]
    assert after[2, 4]  # the last true one stays


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--noise", "1.5"], "The noise must lie in 0 … 1, it is 1.5 (--noise)."),
        (["--noise", "nan"], "The noise must lie in 0 … 1, it is nan (--noise)."),
        (["--noise", "0.1", "--remove", "1"], "to remove must be at least 0 and below 1, it is 1 (--remove)."),
        (["--noise", "0.1", "--remove", "-0.1"], "to remove must be at least 0 and below 1, it is -0.1 (--remove)."),
        ([], "'--noise'"),
    ],
)
def test_rates_out_of_range_are_refused(
    dataset: Dataset, tmp_path: Path, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["perturb", str(dataset.artefact.location), "--out", str(tmp_path / "noisy"), *options]) == 2
    assert_one_sentence(capsys, sentence)
    assert not list(tmp_path.iterdir())


def test_the_command(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["perturb", str(dataset.artefact.location), "--noise", "0.2", "--out", str(tmp_path / "noisy")]
    assert main(command) == 0
    added = Dataset.open(str(tmp_path / "noisy")).manifest.counts["added"]
    assert f"{added:,} false interactions added, 0 true ones removed" in capsys.readouterr().out
    assert main(command) == 2
    assert "exists: choose another place" in capsys.readouterr().err
    with pytest.raises(InputError, match="There is no dataset at"):
        Dataset.open(str(tmp_path / "nowhere"))
