"""Rounding to levels of a byte: how far it goes, and what it costs inner products."""

from __future__ import annotations

import numpy as np
import pytest

from infrec.kernels.levels import Levels, RoundedRows

RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.integers(0, 3000, 200)


def test_no_entry_is_further_off_than_half_a_step() -> None:
    matrix = RANDOM.normal(size=(50, 20))
    found = Levels.of(matrix, np.linspace(0.05, 2, 20))
    assert found.levels.dtype == np.int8 and found.matrix.dtype == np.float32
    assert (np.abs(found.matrix - matrix) <= found.steps / 2 + 1e-6).all()


def test_steps_grow_where_a_byte_is_not_enough() -> None:
    matrix = np.array([[1000.0, 0.0, 1.0], [-500.0, 0.0, 2.0]])
    found = Levels.of(matrix, 1.0)
    np.testing.assert_allclose(found.steps, [1000 / 127, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(found.matrix, matrix, atol=4)
    assert found.levels[0, 0] == 127


def test_zeros_stay_zeros() -> None:
    found = Levels.of(np.zeros((3, 4), np.float32), 0.0)
    assert not found.matrix.any() and np.isfinite(found.steps).all()
    assert Levels.of(np.zeros((0, 4), np.float32), 1.0).matrix.shape == (0, 4)


def test_popular_items_have_fine_steps() -> None:
    rows = RANDOM.uniform(0, 1, (60, 200)).astype(np.float32)
    found = RoundedRows.of(rows, COUNTS, 0.5)
    np.testing.assert_allclose(found.steps * np.sqrt(COUNTS + 0.5), (found.steps * np.sqrt(COUNTS + 0.5))[0], rtol=1e-5)
    assert (found.matrix >= 0).all()


@pytest.mark.parametrize("step", [0.25, 1.0, 2.0])
def test_inner_products_with_users_lose_less_than_at_one_step_for_all(step: float) -> None:
    """At the same number of levels that are not zero."""
    popularity = 1.0 / np.arange(1, 201)
    users = (RANDOM.random((2000, 200)) < popularity).astype(np.float32)
    rows = np.abs(RANDOM.normal(0.1, 0.02, (60, 200))).astype(np.float32)
    counts = users.sum(axis=0).astype(int)
    found = RoundedRows.of(rows, counts, step)
    deviations = rows - rows.mean(axis=0)
    coarser = (Levels.of(deviations, factor * deviations.std()) for factor in np.linspace(0.1, 5, 200))
    as_many = next(other for other in coarser if spent(other) <= spent(found))
    alike = rows.mean(axis=0) + as_many.matrix
    assert error(users, found.matrix - rows) < 0.8 * error(users, alike - rows)


def spent(found: Levels | RoundedRows) -> int:
    return int(np.count_nonzero(found.levels))


def error(users: np.ndarray, difference: np.ndarray) -> float:
    return float(np.square(users @ difference.T).mean())
