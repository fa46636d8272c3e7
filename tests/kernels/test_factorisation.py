"""The graph of tiles against LAPACK on the whole matrix, and against what it says that it needs."""

from __future__ import annotations

import numpy as np
import pytest

from infrec.kernels import factorisation
from infrec.kernels.factorisation import Node, Stage
from infrec.kernels.tiles import Layout, NotPositiveDefinite
from tests.kernels.test_tiles import CONDITION, SIZES, TILE, cut, joined, positive_definite, symmetric
from tests.tolerances import assert_solved

RIDGE = 0.5


def all_tiles(matrix: np.ndarray, layout: Layout, ridge: float = RIDGE) -> dict[Node, np.ndarray]:
    """Every tile, made in the order of `nodes` from those that it says it needs and no others."""
    made = {Node(Stage.GRAM, i, j): tile for (i, j), tile in cut(matrix, layout).items()}
    for tile in made.values():
        tile.flags.writeable = False
    for node in factorisation.nodes(layout):
        allowed = {needed: made[needed] for needed in factorisation.needs(node, layout)}
        made[node] = factorisation.make(node, layout, ridge, allowed.__getitem__)
        made[node].flags.writeable = False
    return made


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverse_and_factor(size: int, dtype: type) -> None:
    layout = Layout(size, TILE)
    matrix = positive_definite(size)
    made = all_tiles(matrix.astype(dtype), layout)
    inverse = {(i, j): made[Stage.INVERSE, i, j] for i, j in layout.lower()}
    shifted = matrix + RIDGE * np.eye(size)
    assert inverse[0, 0].dtype == dtype
    assert_solved(symmetric(inverse, layout), np.linalg.inv(shifted), condition=CONDITION)
    factor = joined({(i, j): made[Stage.FACTOR, i, j] for i, j in layout.lower()}, layout)
    for span in layout.spans():
        factor[span, span] = np.linalg.inv(factor[span, span])
    assert_solved(factor, np.linalg.cholesky(shifted), condition=CONDITION)


def test_every_tile_is_made_once_and_read_by_somebody() -> None:
    layout = Layout(4 * TILE, TILE)
    order = factorisation.nodes(layout)
    assert len(set(order)) == len(order)
    read = {needed for node in order for needed in factorisation.needs(node, layout)}
    unread = [node for node in order if node not in read]
    assert unread == [Node(Stage.INVERSE, i, j) for i, j in layout.lower()]


def test_a_matrix_without_a_factor_is_refused_with_the_rows() -> None:
    layout = Layout(3 * TILE, TILE)
    matrix = np.eye(layout.size)
    matrix[TILE, TILE] = -1 - RIDGE
    with pytest.raises(NotPositiveDefinite, match=f"rows {TILE}–{2 * TILE - 1}.*larger ridge"):
        all_tiles(matrix, layout)


def test_accelerators_add_up_the_same() -> None:
    """JAX's CPU backend stands in for the device: the route is the one that a GPU takes."""
    rng = np.random.default_rng(0)
    pairs = [(rng.random((5, 7), np.float32), rng.random((7, 3), np.float32)) for _ in range(4)]
    expected = sum(left.astype(np.float64) @ right for left, right in pairs)
    np.testing.assert_allclose(factorisation.on_accelerator(iter(pairs)), expected, rtol=1e-5)
