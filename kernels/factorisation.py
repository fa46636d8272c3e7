"""The inverse of a symmetric positive-definite matrix as a graph of tiles, each made once from finished ones.

    L_jj L_jjᵀ = A_jj − Σ_{k<j} L_jk L_jkᵀ,    L_ij = (A_ij − Σ_{k<j} L_ik L_jkᵀ) L_jj⁻ᵀ       factor, left-looking
    W_ii = L_ii⁻¹,    W_ij = −W_ii Σ_{j≤k<i} L_ik W_kj                                         its inverse
    A⁻¹_ij = Σ_{k≥i} W_kiᵀ W_kj                                                               WᵀW

with A = K + c·1. In memory a sweep does the same in fewer operations (`kernels.tiles.invert`), but it changes every
tile in every step. Here a tile, once made, is never changed: it can lie in a file, be made by anyone, and be there when
a killed run is begun again. n³ operations, and some more for the empty halves of triangular tiles.
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
    """Whose tile it is."""

    GRAM = "gram"
    """K, without the ridge: from elsewhere."""
    FACTOR = "factor"
    """L below the diagonal; on it L_ii⁻¹, which is all that is ever asked of it."""
    FACTOR_INVERSE = "factor-inverse"
    """W below the diagonal, which is that of the factor."""
    INVERSE = "inverse"
    """(K + c·1)⁻¹."""


class Node(NamedTuple):
    """One lower tile of one of the matrices."""

    stage: Stage
    i: int
    j: int


Read: TypeAlias = Callable[[Node], Tile]
"""Gives a finished tile, which is not changed."""


def nodes(layout: Layout) -> list[Node]:
    """Every tile on the way to A⁻¹ but the Gram's, in an order in which they can be made: sooner wanted ones first."""
    count = range(layout.count)
    return [
        *(Node(Stage.FACTOR, i, j) for j in count for i in range(j, layout.count)),
        *(Node(Stage.FACTOR_INVERSE, i, j) for i in count for j in range(i)),
        *(Node(Stage.INVERSE, i, j) for i in count for j in range(i + 1)),
    ]


def needs(node: Node, layout: Layout) -> list[Node]:
    """The tiles that `make` reads for this one."""
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
    """The tile of A = K + `ridge`·1. Raises `kernels.tiles.NotPositiveDefinite`."""
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
    """Where W_ij lies."""
    return Node(Stage.FACTOR if i == j else Stage.FACTOR_INVERSE, i, j)


def _sum_of_products(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Σ left · right in the given order: by BLAS on a CPU, on JAX's default device where that is something else."""
    return (_on_cpu if jax.default_backend() == "cpu" else on_accelerator)(iter(pairs))


def _on_cpu(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    left, right = next(pairs)
    total: np.ndarray = left @ right
    product = np.empty_like(total)
    for left, right in pairs:
        total += np.matmul(left, right, out=product)
    return total


def on_accelerator(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Σ left · right, float32 with no reduced precision inside; the sum stays on the device."""
    total = jnp.float32(0)
    for left, right in pairs:
        total = _plus_product(total, jnp.asarray(left), jnp.asarray(right))
    return np.asarray(total)


@jax.jit
def _plus_product(total: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    return total + jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
