"""One tile algebra for symmetric positive-definite systems: factor, inverse and products of a tiled matrix.

A symmetric n × n matrix is held as its lower tiles, a mutable mapping (i, j) → array for i ≥ j. What differs between
solvers is only where a tile lies: here a dict of arrays; a mapping over files serves as well, as long as what it gives
out may be written to. Every operation stores what it changes and works on whole tiles with one BLAS thread; as many
tiles are worked on at once as BLAS had threads. So the bytes of a result depend on the tile size and never on the
number of cores, and no LAPACK call sees more than one tile (one call on a 30,000-wide matrix crashes OpenBLAS).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int
from threadpoolctl import ThreadpoolController

Tile: TypeAlias = Float[np.ndarray, "tile_rows tile_columns"]
Tiles: TypeAlias = MutableMapping[tuple[int, int], np.ndarray]

Pairs: TypeAlias = Iterable[tuple[np.ndarray, np.ndarray]]
"""Factors (left, right) of products that are to be summed."""

TILE = 512
"""Rows of a tile. At 512 a core multiplies tiles at its full rate, and a 6,000-row system has work for many cores."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class NotPositiveDefinite(ArithmeticError):
    """The matrix has no Cholesky factor in its precision: it needs a larger ridge."""


@dataclass(frozen=True)
class Layout:
    """How `size` rows are cut into tiles of `tile` rows; the last one may be shorter."""

    size: int
    tile: int = TILE

    @property
    def count(self) -> int:
        return -(-self.size // self.tile)

    def span(self, i: int) -> slice:
        """The rows of the i-th tile row."""
        return slice(i * self.tile, min((i + 1) * self.tile, self.size))

    def spans(self) -> list[slice]:
        return [self.span(i) for i in range(self.count)]

    def lower(self) -> list[tuple[int, int]]:
        """The indices of all lower tiles."""
        return [(i, j) for i in range(self.count) for j in range(i + 1)]

    def heights(self) -> list[int]:
        return [span.stop - span.start for span in self.spans()]


class ArrayTiles(MutableMapping[tuple[int, int], np.ndarray]):
    """Lower tiles in memory, uninitialised at first. Assigning a tile copies it into its place.

    One allocation for all tiles: it is given back whole, where thousands of small ones would fragment the heap.
    """

    def __init__(self, layout: Layout, dtype: np.dtype | type = np.float32) -> None:
        heights = layout.heights()
        sizes = [heights[i] * heights[j] for i, j in layout.lower()]
        parts = np.split(np.empty(sum(sizes), dtype), np.cumsum(sizes)[:-1])
        self._tiles = {
            (i, j): part.reshape(heights[i], heights[j]) for (i, j), part in zip(layout.lower(), parts, strict=True)
        }

    def __getitem__(self, index: tuple[int, int]) -> np.ndarray:
        return self._tiles[index]

    def __setitem__(self, index: tuple[int, int], tile: np.ndarray) -> None:
        np.copyto(self._tiles[index], tile)

    def __delitem__(self, index: tuple[int, int]) -> None:
        raise TypeError("a matrix keeps all its tiles")

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._tiles)

    def __len__(self) -> int:
        return len(self._tiles)


def copy_with_ridge(source: Tiles, target: Tiles, layout: Layout, ridge: float) -> None:
    """target ← source + ridge · 1."""
    for i, j in layout.lower():
        tile = source[i, j].copy()
        if i == j:
            np.einsum("ii->i", tile)[:] += ridge
        target[i, j] = tile


def trace(tiles: Tiles, layout: Layout) -> float:
    """The sum of the diagonal, in float64."""
    return float(sum(np.trace(tiles[i, i], dtype=np.float64) for i in range(layout.count)))


def cholesky(tiles: Tiles, layout: Layout) -> None:
    """tiles ← L with A = L Lᵀ, left-looking, but with L⁻¹ of each diagonal tile in its place.

        L_jj Lᵀ_jj = A_jj − Σ_{k<j} L_jk Lᵀ_jk,    L_ij = (A_ij − Σ_{k<j} L_ik Lᵀ_jk) L_jj⁻ᵀ

    The panels are made with those inverses by matrix products, as is everything that follows (`invert`), so that only
    GEMM touches more than the diagonal. Costs n³/3 floating-point operations. Raises `NotPositiveDefinite`.
    """
    with _tile_workers() as sums_of_products:
        for j in range(layout.count):

            def of_column(i: int, j: int = j) -> Pairs:
                return ((tiles[i, k], tiles[j, k].T) for k in range(j))

            column = [tiles[i, j] for i in range(j, layout.count)]
            if j:
                known = sums_of_products(range(j, layout.count), of_column)
                column = [tile - product for tile, product in zip(column, known, strict=True)]
            inverse = _inverse_factor(column[0], layout.span(j))
            tiles[j, j] = inverse
            for i, tile in enumerate(sums_of_products(column[1:], _times(inverse.T)), start=j + 1):
                tiles[i, j] = tile


def invert(tiles: Tiles, layout: Layout) -> None:
    """From the output of `cholesky`: tiles ← the lower tiles of A⁻¹ = Wᵀ W with W = L⁻¹, in place.

        W_ij = −(Σ_{j<k≤i} W_ik L_kj) W_jj,    A⁻¹_ij = Σ_{k≥i} Wᵀ_ki W_kj

    W is made from the last column to the first, A⁻¹ from the first row to the last: each needs of the tiles that it
    overwrites only those that are still there. Costs 2n³/3 floating-point operations.
    """
    count = layout.count
    with _tile_workers() as sums_of_products:
        for j in reversed(range(count - 1)):
            factor, inverse = {k: tiles[k, j] for k in range(j + 1, count)}, -tiles[j, j]

            def of_column(i: int, j: int = j, factor: dict[int, Tile] = factor) -> Pairs:
                return ((tiles[i, k], factor[k]) for k in range(j + 1, i + 1))

            sums = sums_of_products(list(factor), of_column)
            for i, tile in zip(factor, sums_of_products(sums, _times(inverse)), strict=True):
                tiles[i, j] = tile
        for i in range(count):

            def of_row(j: int, i: int = i) -> Pairs:
                return ((tiles[k, i].T, tiles[k, j]) for k in range(i, count))

            for j, tile in enumerate(sums_of_products(range(i + 1), of_row)):
                tiles[i, j] = tile


def _times(right: Tile) -> Callable[[Tile], Pairs]:
    """For `sums_of_products`: every tile times the same one."""
    return lambda tile: [(tile, right)]


def columns(tiles: Tiles, layout: Layout, chosen: Int[np.ndarray, " columns"]) -> Float[np.ndarray, "n columns"]:
    """The chosen columns (ascending) of the whole symmetric matrix, dense."""
    result = np.empty((layout.size, len(chosen)), tiles[0, 0].dtype)
    for i, span in enumerate(layout.spans()):
        start, stop = np.searchsorted(chosen, (span.start, span.stop))
        if start == stop:
            continue
        local: np.ndarray | slice = chosen[start:stop] - span.start
        if chosen[stop - 1] - chosen[start] == stop - start - 1:  # consecutive: a view will do
            local = slice(chosen[start] - span.start, chosen[stop - 1] - span.start + 1)
        for j, rows in enumerate(layout.spans()):
            result[rows, start:stop] = tiles[i, j][local].T if j < i else tiles[j, i][:, local]
    return result


def multiply(tiles: Tiles, layout: Layout, right: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "n columns"]:
    """A · right for the symmetric A whose lower tiles these are."""
    spans = layout.spans()

    def of_row(i: int) -> Pairs:
        return (
            (tiles[i, j] if j <= i else tiles[j, i].T, np.ascontiguousarray(right[spans[j]]))
            for j in range(layout.count)
        )

    with _tile_workers() as sums_of_products:
        return np.concatenate(sums_of_products(range(layout.count), of_row))


def _inverse_factor(tile: Tile, rows: slice) -> Tile:
    """L⁻¹ of one diagonal tile A = L Lᵀ, with zeros above its diagonal."""
    try:
        factor = scipy.linalg.cholesky(tile, lower=True, check_finite=False)
    except np.linalg.LinAlgError as error:
        raise NotPositiveDefinite(
            f"not positive definite in {tile.dtype} at rows {rows.start}–{rows.stop - 1}: a larger ridge is needed"
        ) from error
    inverse, _ = scipy.linalg.lapack.get_lapack_funcs("trtri", (factor,))(factor, lower=1)
    return np.ascontiguousarray(np.tril(inverse))


class _OneBlasThread:
    """BLAS runs on one thread while anyone is inside, from whichever threads they came.

    The limit is the process's own, so the first to enter sets it and the last to leave lifts it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> int:
        """The number of threads that BLAS had."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                controller = ThreadpoolController().select(user_api="blas")
                self._threads = max((library.num_threads for library in controller.lib_controllers), default=1)
                self._limits = controller.limit(limits=1)
            return self._threads

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limits.restore_original_limits()


one_blas_thread = _OneBlasThread()
"""For results whose bytes must not depend on the number of cores: `with one_blas_thread: ...`."""


class _SumsOfProducts(Protocol):
    def __call__(self, items: Sequence[Item], pairs: Callable[[Item], Pairs]) -> list[Tile]: ...


@contextmanager
def _tile_workers() -> Iterator[_SumsOfProducts]:
    """Yields `sums_of_products(items, pairs)`: for every item Σ left · right over its pairs of tiles.

    All cores take part, with one BLAS thread each. The unit of work is half a tile's rows, so that an odd number of
    tiles keeps two cores busy, too.
    """
    with one_blas_thread as threads, ThreadPoolExecutor(threads) as pool:

        def sums_of_products(items: Sequence[Item], pairs: Callable[[Item], Pairs]) -> list[Tile]:
            halves = [(item, half) for item in items for half in (0, 1)]
            parts = list(pool.map(lambda work: _sum_of_half(pairs(work[0]), work[1]), halves))
            return [np.concatenate(parts[index : index + 2]) for index in range(0, len(parts), 2)]

        yield sums_of_products


def _sum_of_half(pairs: Pairs, half: int) -> np.ndarray:
    """Σ left · right, the upper or lower half of its rows."""
    total = product = None
    for left, right in pairs:
        middle = len(left) // 2
        rows = left[middle:] if half else left[:middle]
        if total is None or product is None:
            total = rows @ right
            product = np.empty_like(total)
        else:
            np.matmul(rows, right, out=product)
            total += product
    assert total is not None
    return total
