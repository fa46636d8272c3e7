"""Users in blocks: with many items a block has fewer of them, and a candidate fewer judges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infrec.kernels.metrics import combine, propensity_weights
from infrec.pipeline.data import Dataset, block_users, blocks, judging_users, user_blocks
from tests.builders import taste_dataset


def metrics_in_blocks(dataset: Dataset) -> tuple[list[int], dict[str, float]]:
    """The sizes of the blocks, and what random scores are worth."""
    histories, counts = dataset.histories(), dataset.items()["train_count"].to_numpy()
    scores = np.random.default_rng(0).random((len(histories), dataset.num_items), np.float32)
    found = user_blocks(histories, "test", seed=0)
    judged = combine(block.metrics(scores[block.rows], propensity_weights(counts)) for block in found)
    return [len(block.rows) for block in found], judged


def test_metrics_do_not_depend_on_the_size_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = taste_dataset(tmp_path / "data", 130, 40, seed=0)
    (everyone,), at_once = metrics_in_blocks(dataset)
    monkeypatch.setattr(blocks, "_BLOCK_ENTRIES", 50 * 40)
    sizes, in_blocks = metrics_in_blocks(dataset)
    assert max(sizes) == 50 and sum(sizes) == everyone
    for name in set(at_once) - {"AUC"}:  # other blocks sample other negatives
        assert in_blocks[name] == pytest.approx(at_once[name])


@pytest.mark.parametrize("items", [1, 3_706, 100_000, 1_000_000, 50_000_000])
def test_large_catalogues_have_small_blocks_and_few_judges(items: int) -> None:
    assert 32 <= block_users(items) <= 512 and 512 <= judging_users(10_000, items) <= 10_000
    assert block_users(items) * items <= 2**26 or block_users(items) == 32
    assert judging_users(10_000, items) * items <= 2**30 or judging_users(10_000, items) == 512
    assert judging_users(100, items) == 100
