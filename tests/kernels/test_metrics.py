"""The metrics against a loop over users, on random data with every awkward user."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.metrics import (
    CUTOFFS,
    METRICS,
    BlockMetrics,
    area_under_curve,
    block_metrics,
    combine,
    propensity_weights,
    sample_negatives,
)
from tests import oracles
from tests.tolerances import METRIC

USERS, ITEMS = 60, 30
SEED = 5


class Data:
    """Users with from none to most items seen, from none to half to be predicted; scores with many ties."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        kind = rng.random((USERS, ITEMS))
        seen = kind < rng.uniform(0, 0.6, (USERS, 1))
        truth = (kind > rng.uniform(0.5, 1, (USERS, 1))) & ~seen
        truth[::7] = False
        truth[::10] |= ~seen[::10]  # who know everything: there is no negative
        seen[3], truth[3] = False, True  # and who saw nothing before
        self.scores = rng.integers(8, size=(USERS, ITEMS)).astype(np.float32)
        self.seen, self.truth = sp.csr_array(seen.astype(np.float32)), sp.csr_array(truth.astype(np.float32))
        self.known = sp.csr_array(self.seen + self.truth)
        self.weights = propensity_weights(rng.integers(0, 400, ITEMS))

    def block(self, users: slice, number: int = 0, cutoffs: tuple[int, ...] = CUTOFFS) -> BlockMetrics:
        return block_metrics(
            self.scores[users].copy(),
            seen=self.seen[users],
            truth=self.truth[users],
            negatives=sample_negatives(self.known[users], seed=SEED, block=number),
            weights=self.weights,
            cutoffs=cutoffs,
        )

    def items_of(self, matrix: sp.csr_array, user: int) -> set[int]:
        return set(matrix[[user]].indices.tolist())


@pytest.fixture(params=range(3))
def data(request: pytest.FixtureRequest) -> Data:
    return Data(request.param)


@pytest.mark.parametrize("cutoffs", [CUTOFFS, (1,), (3, 7), (ITEMS, ITEMS + 1, 5)])
def test_equal_a_loop_over_users(data: Data, cutoffs: tuple[int, ...]) -> None:
    """|T| above and below k, k above the number of items, users without a truth set."""
    found = combine([data.block(slice(None), cutoffs=cutoffs)])
    seen, truth = data.seen.toarray(), data.truth.toarray()
    assert 0 < data.block(slice(None)).users < USERS
    assert len(found) == 4 * len(cutoffs) + 1
    for k in cutoffs:
        expected = oracles.average_metrics(data.scores, seen, truth, data.weights, k)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=METRIC), name


def test_only_some_items_have_scores(data: Data) -> None:
    """The others count as −∞, and what a user wants of them is missed."""
    scored = np.arange(1, ITEMS, 2)
    others = np.setdiff1d(np.arange(ITEMS), scored)
    enough = np.flatnonzero(np.diff(data.seen[:, scored].indptr) <= len(scored) - 3)  # three of them can be recommended
    scores, seen, truth, known = (of[enough] for of in (data.scores, data.seen, data.truth, data.known))
    sampled = {"negatives": sample_negatives(known, seed=SEED, block=0), "weights": data.weights, "cutoffs": (1, 3)}
    found = block_metrics(scores[:, scored], seen=seen, truth=truth, scored=scored, **sampled)
    scores[:, others] = -np.inf
    expected = block_metrics(scores, seen=seen, truth=truth, **sampled)
    assert combine([found]) == combine([expected])
    assert np.isinf(found.positives).any() and np.isinf(found.negatives).any()


def test_names_are_those_announced(data: Data) -> None:
    assert set(combine([data.block(slice(None))])) == set(METRICS)


def test_blocks_add_up_to_the_whole(data: Data) -> None:
    whole = combine([data.block(slice(None))])
    cuts = [0, 1, 17, 18, 40, USERS]
    blocks = [data.block(slice(*cut), number) for number, cut in enumerate(pairwise(cuts))]
    split = combine(blocks)
    for name in set(whole) - {"AUC"}:  # other blocks sample other negatives
        assert split[name] == pytest.approx(whole[name], rel=METRIC)
    assert sum(block.users for block in blocks) == data.block(slice(None)).users
    assert combine(iter(blocks)) == split


def test_pooled_auc_counts_pairs(data: Data) -> None:
    block = data.block(slice(None))
    positives = [data.scores[user, item] for user in range(USERS) for item in sorted(data.items_of(data.truth, user))]
    negatives = sample_negatives(data.known, seed=SEED, block=0)
    expected = [data.scores[user, item] for user in range(USERS) for item in negatives[user] if item >= 0]
    assert block.positives.tolist() == positives
    assert block.negatives.tolist() == expected
    found = combine([block])["AUC"]
    assert found == pytest.approx(oracles.area_under_curve(positives, expected), rel=METRIC)


@pytest.mark.parametrize(
    ("positives", "negatives", "area"),
    [
        ([2.0], [1.0], 1),
        ([1.0], [2.0], 0),
        ([1.0], [1.0], 0.5),
        ([3.0, 1.0], [2.0], 0.5),
        ([], [1.0], 0.5),
        ([1.0], [], 0.5),
    ],
)
def test_area_under_curve_by_hand(positives: list, negatives: list, area: float) -> None:
    assert area_under_curve(np.array(positives), np.array(negatives)) == pytest.approx(area)


def test_negatives_are_unknown_items_drawn_evenly(data: Data) -> None:
    negatives = sample_negatives(data.known, seed=SEED, block=3)
    assert negatives.shape == (USERS, 50)
    for user in range(USERS):
        known = data.items_of(data.known, user)
        drawn = set(negatives[user].tolist())
        if len(known) == ITEMS:
            assert drawn == {-1}
        elif len(known) < ITEMS - 1:
            assert not drawn & known
            assert drawn <= set(range(ITEMS))
    nothing_known = sp.csr_array((200, 4), dtype=np.float32)
    counts = np.bincount(sample_negatives(nothing_known, seed=0, block=0).ravel())
    np.testing.assert_allclose(counts, 2500, rtol=0.1)


def test_negatives_follow_from_seed_and_block(data: Data) -> None:
    def drawn(seed: int, block: int) -> list:
        return sample_negatives(data.known, seed=seed, block=block).tolist()

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


def test_propensity_weights_by_hand() -> None:
    counts = np.array([0, 1, 98])
    scale = (np.log(99) - 1) * 2.5**0.55
    np.testing.assert_allclose(propensity_weights(counts), [1 + scale * (n + 1.5) ** -0.55 for n in counts])
    assert np.isfinite(propensity_weights(np.zeros(3, int))).all()


def test_perfect_and_useless_scores() -> None:
    data = Data(0)
    truth = data.truth.toarray()
    data.scores = (truth * data.weights).astype(np.float32)
    perfect = combine([data.block(slice(None))])
    assert perfect["AUC"] == 1
    assert all(perfect[name] == pytest.approx(100) for name in perfect if name.startswith(("HR", "nDCG")))
    data.scores = -truth
    assert combine([data.block(slice(None), cutoffs=(1,))])["AUC"] == 0


def test_nobody_to_predict_for() -> None:
    data = Data(0)
    data.truth = sp.csr_array(data.truth.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="no user"):
        combine([data.block(slice(None))])
    with pytest.raises(ValueError, match="no user"):
        combine([])
