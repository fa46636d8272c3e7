"""The inverse of a symmetric positive-definite matrix as a graph of tiles. Each is made once, from finished tiles.

    L_jj L_jjᵀ = A_jj − Σ_{k<j} L_jk L_jkᵀ,    L_ij = (A_ij − Σ_{k<j} L_ik L_jkᵀ) L_jj⁻ᵀ       factor, left-looking
    W_ii = L_ii⁻¹,    W_ij = −W_ii Σ_{j≤k<i} L_ik W_kj                                         its inverse
    A⁻¹_ij = Σ_{k≥i} W_kiᵀ W_kj                                                               WᵀW

Here A = K + c·1. In memory, a sweep (`kernels.tiles.invert`) does the same in fewer operations, but it changes every
tile in every step. Here a tile never changes once it is made. So it can lie in a file, any worker can make it, and it
is there when a killed run begins again. The cost is n³ operations, and some more for the empty halves of triangular
tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from infrec.kernels.tiles import Layout, Tile, inverse_factor


class Stage(StrEnum):
    """The matrix that a tile belongs to."""

    GRAM = "gram"
    """K, without the ridge. The caller provides these tiles."""
    FACTOR = "factor"
    """L below the diagonal. The diagonal tiles hold L_ii⁻¹, because nothing reads L_ii itself."""
    FACTOR_INVERSE = "factor-inverse"
    """W below the diagonal. Its diagonal tiles are those of `FACTOR`."""
    INVERSE = "inverse"
    """(K + c·1)⁻¹."""


class Node(NamedTuple):
    """One lower tile (i ≥ j) of one of the matrices."""

    stage: Stage
    i: int
    j: int


Read: TypeAlias = Callable[[Node], Tile]
"""A function that returns a finished tile. Its caller does not change that tile."""


def nodes(layout: Layout) -> list[Node]:
    """Return every tile on the way to A⁻¹ except the Gram's, in an order in which they can be made.

    Tiles that are wanted sooner come first.
    """
    count = range(layout.count)
    return [
        *(Node(Stage.FACTOR, i, j) for j in count for i in range(j, layout.count)),
        *(Node(Stage.FACTOR_INVERSE, i, j) for i in count for j in range(i)),
        *(Node(Stage.INVERSE, i, j) for i in count for j in range(i + 1)),
    ]


def needs(node: Node, layout: Layout) -> list[Node]:
    """Return the tiles that `make` reads for `node`."""
    stage, i, j = node
    match stage:
        case Stage.FACTOR:
            rows = [Node(stage, row, k) for k in range(j) for row in dict.fromkeys((i, j))]
            return [Node(Stage.GRAM, i, j), *rows, *([Node(stage, j, j)] if i > j else [])]
        case Stage.FACTOR_INVERSE:
            own = [Node(Stage.FACTOR, i, k) for k in range(j, i + 1)]
            return [*own, *(_inverse_factor_node(k, j) for k in range(j, i))]
        case Stage.INVERSE:
            below = range(i, layout.count)
            return [_inverse_factor_node(k, column) for k in below for column in dict.fromkeys((i, j))]
        case Stage.GRAM:
            return []


def make(node: Node, layout: Layout, ridge: float, read: Read) -> Tile:
    """Return the tile `node` for A = K + `ridge`·1, from the finished tiles that `read` gives. `node` is no Gram tile.

    The tile has the dtype of the tiles that it is made from; on an accelerator, products are float32. Raises
    `kernels.tiles.NotPositiveDefinite` where a diagonal tile has no Cholesky factor.
    """
    stage, i, j = node
    if stage == Stage.FACTOR:
        tile = read(Node(Stage.GRAM, i, j)).copy()
        if j:
            tile -= _sum_of_products((read(Node(stage, i, k)), read(Node(stage, j, k)).T) for k in range(j))
        if i == j:
            np.einsum("ii->i", tile)[:] += ridge
            return inverse_factor(tile, layout.span(i))
        return _sum_of_products([(tile, read(Node(stage, j, j)).T)])
    if stage == Stage.FACTOR_INVERSE:
        total = _sum_of_products(
            (read(Node(Stage.FACTOR, i, k)), read(_inverse_factor_node(k, j))) for k in range(j, i)
        )
        return _sum_of_products([(-read(Node(Stage.FACTOR, i, i)), total)])
    return _sum_of_products(
        (read(_inverse_factor_node(k, i)).T, read(_inverse_factor_node(k, j))) for k in range(i, layout.count)
    )


def _inverse_factor_node(i: int, j: int) -> Node:
    """Return the node that holds W_ij."""
    return Node(Stage.FACTOR if i == j else Stage.FACTOR_INVERSE, i, j)


def _sum_of_products(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return Σ left · right, added up in the given order.

    BLAS computes it where JAX's default device is a CPU; otherwise that device computes it.
    """
    return (_on_cpu if jax.default_backend() == "cpu" else on_accelerator)(iter(pairs))


def _on_cpu(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    left, right = next(pairs)
    total: np.ndarray = left @ right
    product = np.empty_like(total)
    for left, right in pairs:
        total += np.matmul(left, right, out=product)
    return total


def on_accelerator(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return Σ left · right over the pairs (a × b and b × c), float32 with no reduced precision inside.

    JAX's default device computes it, and the running sum stays there.
    """
    total = jnp.float32(0)
    for left, right in pairs:
        total = _plus_product(total, jnp.asarray(left), jnp.asarray(right))
    return np.asarray(total)


@jax.jit
def _plus_product(total: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    return total + jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
