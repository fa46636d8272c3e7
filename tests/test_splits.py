"""Every split against a naive one that goes user by user, and against the official ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infrec.pipeline.ingest import Split
from infrec.pipeline.ingest.hashing import keyed, mix
from infrec.pipeline.ingest.reading.timestamps import quantile, radix_histogram
from infrec.pipeline.ingest.splits import TEST, TRAIN, VALIDATION, Interactions, assign, holdout_role, random_bounds


def interactions(seed: int, users: int = 200) -> Interactions:
    random = np.random.default_rng(seed)
    counts = np.minimum(random.geometric(0.05, users), 150) - 1  # some users have none
    user = np.repeat(np.arange(users), counts)
    return Interactions(
        user=user,
        item_hash=mix(random.integers(0, 10**6, len(user)).astype(np.uint64)),
        user_hash=mix(np.arange(users, dtype=np.uint64)),
        value=random.integers(0, 50, len(user)),  # many ties
    )


def naive_random_order(rows: Interactions, user: int, seed: int) -> list[int]:
    mine = np.flatnonzero(rows.user == user)
    user_key = int(keyed(rows.user_hash[[user]], seed)[0])
    draws = [int(mix(np.array([user_key ^ int(rows.item_hash[row])], np.uint64))[0]) for row in mine]
    return [int(row) for _, row in sorted(zip(draws, mine, strict=True))]


@pytest.mark.parametrize("seed", [0, 1])
def test_random(seed: int) -> None:
    rows = interactions(seed)
    part, held_out = assign(Split.RANDOM, rows, seed=seed)
    assert not held_out.any()
    for user in range(200):
        order = naive_random_order(rows, user, seed)
        train = max(1, int(0.8 * len(order)) - 1)
        validation = max(train, int(0.9 * len(order)) - 1)
        expected = [TRAIN] * train + [VALIDATION] * (validation - train) + [TEST] * len(order)
        assert part[order].tolist() == expected[: len(order)]


@pytest.mark.parametrize("log", ["ml-1m", "magazine"])
def test_random_counts_are_those_of_the_official_splits(shared_data: Path, log: str) -> None:
    table = pq.read_table(shared_data / f"{log}.parquet", columns=["user_id", "split"])
    users = table["user_id"].to_numpy()

    def count(split: str) -> np.ndarray:
        return np.bincount(users[pc.equal(table["split"], split).to_numpy()], minlength=users.max() + 1)

    train, validation, test = count("train"), count("val"), count("test")
    total = train + validation + test
    validation_from, test_from = random_bounds(total)
    there = total > 0
    assert (train == validation_from)[there].all()
    assert (train + validation == test_from)[there].all()


def test_random_does_not_depend_on_who_else_is_there() -> None:
    rows = interactions(3)
    whole, _ = assign(Split.RANDOM, rows, seed=5)
    for users in (range(0, 70), range(70, 200)):
        mine = (rows.user >= users.start) & (rows.user < users.stop)
        alone = Interactions(
            rows.user[mine] - users.start, rows.item_hash[mine], rows.user_hash[users.start : users.stop]
        )
        assert (assign(Split.RANDOM, alone, seed=5)[0] == whole[mine]).all()


def test_random_where_draws_tie_is_in_row_order() -> None:
    rows = Interactions(np.zeros(20, int), np.zeros(20, np.uint64), np.zeros(1, np.uint64))
    part, _ = assign(Split.RANDOM, rows, seed=0)
    assert part.tolist() == [TRAIN] * 15 + [VALIDATION] * 2 + [TEST] * 3


def test_leave_last() -> None:
    rows = interactions(1)
    assert rows.value is not None
    part, held_out = assign(Split.LEAVE_LAST, rows, seed=0)
    assert not held_out.any()
    for user in range(200):
        mine = np.flatnonzero(rows.user == user).tolist()
        mine.sort(key=lambda row: (rows.value[row], rows.item_hash[row]))
        expected = [TRAIN] * len(mine)
        if len(mine) >= 2:
            expected[-1] = TEST
        if len(mine) >= 3:
            expected[-2] = VALIDATION
        assert part[mine].tolist() == expected


def test_temporal() -> None:
    rows = interactions(2)
    assert rows.value is not None
    part, _ = assign(Split.TEMPORAL, rows, seed=0, cuts=(20, 35))
    naive = [TRAIN if time < 20 else VALIDATION if time < 35 else TEST for time in rows.value]
    assert part.tolist() == naive


def test_users_are_held_out_whole_with_a_context() -> None:
    rows = interactions(4, users=2000)
    part, held_out = assign(Split.USERS, rows, seed=9)
    role = holdout_role(rows.user_hash, 9)
    assert (held_out == (role != TRAIN)).all()
    assert 0.07 < np.mean(role == VALIDATION) < 0.13
    assert 0.07 < np.mean(role == TEST) < 0.13
    assert (part[role[rows.user] == TRAIN] == TRAIN).all()
    for user in np.flatnonzero(held_out)[:100]:
        order = naive_random_order(rows, int(user), 9)
        context = max(1, int(0.8 * len(order)))
        assert part[order].tolist() == ([TRAIN] * context + [role[user]] * len(order))[: len(order)]


def test_stable_parts_are_drawn_one_by_one() -> None:
    rows = interactions(4, users=2000)
    part, held_out = assign(Split.STABLE, rows, seed=9)
    assert not held_out.any()
    user_keys = keyed(rows.user_hash, 9)
    for row in range(0, len(part), 100):
        draw = int(mix(user_keys[rows.user[[row]]] ^ rows.item_hash[[row]])[0])
        assert part[row] == (VALIDATION if draw < 2**64 / 10 else TEST if draw < 2**64 / 5 else TRAIN)
    np.testing.assert_allclose(np.bincount(part) / len(part), [0.8, 0.1, 0.1], atol=0.01)


def test_stable_parts_do_not_depend_on_what_else_there_is() -> None:
    rows = interactions(5)
    some = np.random.default_rng(0).random(len(rows.user)) < 0.3
    fewer = Interactions(user=rows.user[some], item_hash=rows.item_hash[some], user_hash=rows.user_hash)
    part, _ = assign(Split.STABLE, rows, seed=1)
    of_fewer, _ = assign(Split.STABLE, fewer, seed=1)
    assert (part[some] == of_fewer).all()


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.8, 0.9])
def test_quantiles_of_distributed_values_are_exact(fraction: float) -> None:
    random = np.random.default_rng(0)
    extremes = np.array([-(2**63), 2**63 - 1, 0, -1])
    shards = [extremes, random.integers(-(2**63), 2**63 - 1, 1000), random.integers(0, 9, 500)]
    found = quantile(fraction, lambda shift, prefix: sum(radix_histogram(s, shift, prefix) for s in shards))
    values = np.sort(np.concatenate(shards))
    assert found == values[int(fraction * len(values))]
