"""Splits decide which interactions are trained on, validated on and tested on.

All functions here are pure functions of arrays. Whatever is random is keyed by (seed, user id, item id) through
`pipeline.ingest.hashing`. So a user's split is the same however users are dealt out to shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from infrec.pipeline.ingest.hashing import keyed, mix

TRAIN, VALIDATION, TEST = range(3)
PART_NAMES = {"train": TRAIN, "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "test": TEST}
"""The values of a split column that are understood, in lower case. Rows with any other value are dropped."""

_HOLDOUT_STREAM = 0x686F6C64  # "hold": the choice of held-out users is independent of the order of their interactions


class Split(StrEnum):
    """The rule that splits interactions into train, validation and test."""

    RANDOM = "random"
    """80/10/10 of each user's interactions in a random order, rounded as in the ∞-AE paper's code."""
    LEAVE_LAST = "leave-last"
    """A user's last interaction is test, and the last but one is validation."""
    TEMPORAL = "temporal"
    """Validation begins at one global cut in time, and test at another."""
    COLUMN = "column"
    """A column of the log names the part of each interaction."""
    USERS = "users"
    """Strong generalisation: 10 % of the users are held out for validation and 10 % for test. 80 % of a held-out user's
    interactions are the context (the train list), and the rest are the target."""
    STABLE = "stable"
    """Each interaction falls into a part by itself, with the odds 80/10/10, whatever else is in the log. So no part
    changes as the log grows, and what was once held out is never trained on. Users with held-out interactions only are
    kept."""

    @property
    def needs_timestamp(self) -> bool:
        return self in (Split.LEAVE_LAST, Split.TEMPORAL)

    @property
    def keeps_untrained_users(self) -> bool:
        """Whether users without train interactions are kept: more of the log may bring them some."""
        return self == Split.STABLE


@dataclass(frozen=True)
class Interactions:
    """The interactions of some users, sorted by user and then by item id."""

    user: np.ndarray
    """int [n], non-decreasing, each below `len(user_hash)`."""
    item_hash: np.ndarray
    """uint64 [n]."""
    user_hash: np.ndarray
    """uint64 [users]."""
    value: np.ndarray | None = None
    """int64 [n]: the time (`leave-last`, `temporal`) or the given part (`column`)."""

    @property
    def per_user(self) -> np.ndarray:
        return np.bincount(self.user, minlength=len(self.user_hash))


def assign(
    split: Split, rows: Interactions, *, seed: int, cuts: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of every interaction (int8 [n]) and whether each user is held out (bool [users]).

    `cuts` are the times at which validation and test begin. Only the temporal split needs them.
    """
    nobody = np.zeros(len(rows.user_hash), dtype=bool)
    match split:
        case Split.RANDOM:
            return _by_position(_random_rank(rows, seed), rows, *random_bounds(rows.per_user)), nobody
        case Split.LEAVE_LAST:
            return _by_position(_rank_in_time(rows), rows, *leave_last_bounds(rows.per_user)), nobody
        case Split.TEMPORAL:
            assert rows.value is not None
            assert cuts is not None
            return np.searchsorted(np.array(cuts), rows.value, side="right").astype(np.int8), nobody
        case Split.COLUMN:
            assert rows.value is not None
            return rows.value.astype(np.int8), nobody
        case Split.USERS:
            role = holdout_role(rows.user_hash, seed)
            is_target = _random_rank(rows, seed) >= context_size(rows.per_user)[rows.user]
            return np.where(is_target, role[rows.user], TRAIN).astype(np.int8), role != TRAIN
        case Split.STABLE:
            return _by_lot(_draw(rows, seed)), nobody


def random_bounds(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where validation and test begin among a user's n = `count` interactions: ⌊0.8n⌋ − 1 and ⌊0.9n⌋ − 1.

    The − 1 is the official code's. Its published ML-1M and Magazine splits follow this rule for every user. They have
    no user below three interactions. Here a user always keeps at least one interaction for training.
    """
    validation = np.maximum(count * 8 // 10 - 1, 1)
    return validation, np.maximum(count * 9 // 10 - 1, validation)


def leave_last_bounds(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where validation and test begin among a user's `count` interactions.

    The last of two or more is test, and the last but one of three or more is validation.
    """
    test = np.where(count >= 2, count - 1, count)
    return np.where(count >= 3, count - 2, test), test


def context_size(count: np.ndarray) -> np.ndarray:
    """Return how many of a held-out user's `count` interactions are context: 80 %, at least one."""
    size: np.ndarray = np.maximum(count * 8 // 10, 1)
    return size


def holdout_role(user_hash: np.ndarray, seed: int) -> np.ndarray:
    """Return TRAIN (80 %), VALIDATION (10 %, held out) or TEST (10 %, held out), by a hash of (seed, id).

    The result is int8 [users].
    """
    return _by_lot(keyed(user_hash ^ np.uint64(_HOLDOUT_STREAM), seed))


def _by_lot(draw: np.ndarray) -> np.ndarray:
    """Return the part of each uniform 64-bit draw: the first tenth is VALIDATION, the second TEST, the rest TRAIN."""
    tenth = draw // np.uint64(2**64 // 10 + 1)
    return np.select([tenth == 0, tenth == 1], [VALIDATION, TEST], TRAIN).astype(np.int8)


def _by_position(rank: np.ndarray, rows: Interactions, validation: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the part by rank within the user. `validation` and `test` are the ranks at which these parts begin."""
    part: np.ndarray = (rank >= validation[rows.user]).astype(np.int8)
    part += rank >= test[rows.user]
    return part


def _draw(rows: Interactions, seed: int) -> np.ndarray:
    """Return uniform numbers, uint64 [n]: a function of (seed, user id, item id)."""
    return mix(keyed(rows.user_hash, seed)[rows.user] ^ rows.item_hash)


def _random_rank(rows: Interactions, seed: int) -> np.ndarray:
    """Return the place of every interaction in a random order of its user's interactions, from 0."""
    draw = _draw(rows, seed)
    # One SIMD sort orders by (user, leading bits of the draw). If those bits tie anywhere, the whole draw decides.
    bits = np.uint64(max(1, len(rows.user_hash).bit_length()))
    packed = rows.user.astype(np.uint64) << (np.uint64(64) - bits) | draw >> bits
    order = np.argsort(packed)
    ordered = packed[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((draw, rows.user))
    return _rank(order, rows)


def _rank_in_time(rows: Interactions) -> np.ndarray:
    """Return the place of every interaction in its user's history, from 0. The item's hash orders equal times."""
    assert rows.value is not None
    return _rank(np.lexsort((rows.item_hash, rows.value, rows.user)), rows)


def _rank(order: np.ndarray, rows: Interactions) -> np.ndarray:
    """Return the ranks within each user, given an order that sorts by user first."""
    first = np.cumsum(rows.per_user) - rows.per_user
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    rank -= first[rows.user]
    return rank
