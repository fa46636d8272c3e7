"""One tile algebra for symmetric positive-definite systems: the inverse and products of a tiled matrix.

A symmetric n × n matrix is held as its lower tiles: a mutable mapping (i, j) → array for i ≥ j. Every operation works
on whole tiles with one BLAS thread, and on as many tiles at once as BLAS had threads. So the bytes of a result depend
on the tile size and never on the number of cores, and no LAPACK call sees more than one tile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int
from threadpoolctl import OpenBLASController, ThreadpoolController

Tile: TypeAlias = Float[np.ndarray, "tile_rows tile_columns"]
Tiles: TypeAlias = MutableMapping[tuple[int, int], np.ndarray]

LARGEST_CALL = 20_000
"""The number of rows of the largest matrix that a LAPACK call may get: one of 29,858 rows crashed OpenBLAS."""


@runtime_checkable
class FinishedTiles(Protocol):
    """Lower tiles that are only read. They may lie anywhere, for example in files."""

    def __getitem__(self, index: tuple[int, int], /) -> np.ndarray: ...


TILE = 512
"""The number of rows of a tile.

At 512, a core multiplies tiles at its full rate, and a 6,000-row system has work for many cores.
"""

Item = TypeVar("Item")
Result = TypeVar("Result")


class NotPositiveDefinite(ArithmeticError):
    """The matrix has no Cholesky factor in its precision: it needs a larger ridge."""


@dataclass(frozen=True)
class Layout:
    """The cut of `size` rows into tiles of `tile` rows. The last one may be shorter."""

    size: int
    tile: int = TILE

    @property
    def count(self) -> int:
        """The number of tile rows."""
        return -(-self.size // self.tile)

    def span(self, i: int) -> slice:
        """Return the rows of the i-th tile row."""
        return slice(i * self.tile, min((i + 1) * self.tile, self.size))

    def spans(self) -> list[slice]:
        return [self.span(i) for i in range(self.count)]

    def lower(self) -> list[tuple[int, int]]:
        """Return the indices of all lower tiles."""
        return [(i, j) for i in range(self.count) for j in range(i + 1)]

    @property
    def lower_entries(self) -> int:
        """The number of entries of all lower tiles."""
        return sum((row.stop - row.start) * row.stop for row in self.spans())

    def heights(self) -> list[int]:
        return [span.stop - span.start for span in self.spans()]


class ArrayTiles(MutableMapping[tuple[int, int], np.ndarray]):
    """Lower tiles in memory, uninitialised at first. Assigning a tile copies it into its place.

    All tiles share one allocation. It is given back whole, whereas thousands of small ones would fragment the heap.
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


def copy_with_ridge(source: FinishedTiles, target: ArrayTiles, layout: Layout, ridge: float) -> None:
    """Write source + ridge · 1 to `target`.

    All cores copy, because the first touch of fresh memory is slow.
    """

    def copy(index: tuple[int, int]) -> None:
        target[index] = source[index]
        if index[0] == index[1]:
            np.einsum("ii->i", target[index])[:] += ridge

    with on_all_cores() as each:
        each(copy, layout.lower())


def trace(tiles: FinishedTiles, layout: Layout) -> float:
    """Return the sum of the diagonal, computed in float64."""
    return float(sum(np.trace(tiles[i, i], dtype=np.float64) for i in range(layout.count)))


def invert(tiles: Tiles, layout: Layout) -> None:
    """Replace the lower tiles of a symmetric positive-definite A by those of A⁻¹. Raises `NotPositiveDefinite`.

    One tile row k after another is swept. When each has had its turn, −A⁻¹ is left:

        P = A_kk⁻¹,    V_i = A_ik P,    A_ij ← A_ij − V_i A_kj,    A_ik ← V_i,    A_kk ← −P.

    The cost is n³ floating-point operations, as for a Cholesky factor and the inverse from it. But all tiles take part
    in every step, no half-empty triangles are multiplied, and the one serial part, P, is made while other tiles are
    updated. Source: Goodnight, The American Statistician 33(3), 1979. For positive-definite matrices it is as stable
    as elimination (Peters & Wilkinson, CACM 18(1), 1975).
    """
    swept = [np.empty((height, layout.tile), tiles[0, 0].dtype) for height in layout.heights()]
    with on_all_cores() as each:
        pivot: np.ndarray | None = _inverse(tiles[0, 0], layout.span(0))
        for k in range(layout.count):
            assert pivot is not None
            pivot = _sweep(tiles, layout, k, pivot, swept, each)
        each(lambda index: np.negative(tiles[index], out=tiles[index]), layout.lower())


def _sweep(
    tiles: Tiles, layout: Layout, k: int, pivot: np.ndarray, swept: list[np.ndarray], each: Each
) -> np.ndarray | None:
    """Make one step of `invert`, and return the next P where there is one. `swept` is memory for the V_i."""
    others = [i for i in range(layout.count) if i != k]
    column = {i: tiles[i, k] if i > k else tiles[k, i].T for i in others}
    panel = {i: swept[i][:, : len(pivot)] for i in others}

    def multiply_panel(i: int) -> None:
        np.matmul(column[i], pivot, out=panel[i])

    def update(index: tuple[int, int]) -> Tile | None:
        i, j = index
        tiles[index] -= panel[i] @ column[j].T
        return _inverse(tiles[index], layout.span(i)) if i == j == k + 1 else None

    def store_panel(i: int) -> None:
        column[i][:] = panel[i]

    each(multiply_panel, others)
    # The tile of the next pivot comes first, so that its inverse is made beside the other updates
    updates = sorted(((i, j) for i in others for j in others if j <= i), key=lambda index: index != (k + 1, k + 1))
    next_pivots = each(update, updates)
    each(store_panel, others)
    tiles[k, k] = -pivot
    return next_pivots[0] if updates else None


def columns(
    tiles: FinishedTiles, layout: Layout, chosen: Int[np.ndarray, " columns"]
) -> Float[np.ndarray, "n columns"]:
    """Return the chosen columns (ascending) of the whole symmetric matrix, dense, in its dtype."""
    result = np.empty((layout.size, len(chosen)), tiles[0, 0].dtype)
    for i, span in enumerate(layout.spans()):
        start, stop = np.searchsorted(chosen, (span.start, span.stop))
        if start == stop:
            continue
        local: np.ndarray | slice = chosen[start:stop] - span.start
        if chosen[stop - 1] - chosen[start] == stop - start - 1:  # for consecutive columns a view is enough
            local = slice(chosen[start] - span.start, chosen[stop - 1] - span.start + 1)
        for j, rows in enumerate(layout.spans()):
            result[rows, start:stop] = tiles[i, j][local].T if j < i else tiles[j, i][:, local]
    return result


def multiply(
    tiles: FinishedTiles, layout: Layout, right: Float[np.ndarray, "n columns"]
) -> Float[np.ndarray, "n columns"]:
    """Return A · right for the symmetric A with these lower tiles, in the dtype of `right`."""
    spans = layout.spans()
    result = np.empty(right.shape, right.dtype)

    def row(i: int) -> None:
        total, product = result[spans[i]], np.empty_like(result[spans[i]])
        total[:] = 0
        for j, span in enumerate(spans):
            total += np.matmul(tiles[i, j] if j <= i else tiles[j, i].T, right[span], out=product)

    with on_all_cores() as each:
        each(row, range(layout.count))
    return result


def inverse_factor(tile: Tile, rows: slice) -> Tile:
    """Return L⁻¹ of a diagonal tile A = L Lᵀ, with zeros above its diagonal, in the tile's dtype.

    Raises `NotPositiveDefinite` where L does not exist. The error names `rows`, the tile's place in the matrix.
    """
    try:
        factor = scipy.linalg.cholesky(tile, lower=True, check_finite=False)
    except np.linalg.LinAlgError as error:
        raise NotPositiveDefinite(
            f"not positive definite in {tile.dtype} at rows {rows.start}–{rows.stop - 1}: a larger ridge is needed"
        ) from error
    inverse, _ = scipy.linalg.lapack.get_lapack_funcs("trtri", (factor,))(factor, lower=1)
    return np.ascontiguousarray(np.tril(inverse))


def _inverse(tile: Tile, rows: slice) -> Tile:
    """Return A⁻¹ of one diagonal tile."""
    factor = inverse_factor(tile, rows)
    return np.asarray(factor.T @ factor)


class _OneBlasThread:
    """A context in which BLAS runs on one thread. Several threads may be inside at the same time.

    The limit belongs to the whole process, so the first thread that enters sets it and the last that leaves lifts it.
    By itself threadpoolctl would take limits from one thread alone, and silently leave out those of others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> int:
        """Return the number of threads that BLAS had."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                controller = ThreadpoolController().select(user_api="blas")
                self._threads = max((library.num_threads for library in controller.lib_controllers), default=1)
                OpenBLASController.clear_controlling_thread(force=True)
                self._limits = controller.limit(limits=1)
            return self._threads

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                OpenBLASController.clear_controlling_thread(force=True)
                self._limits.restore_original_limits()


one_blas_thread = _OneBlasThread()
"""Use it for results whose bytes must not depend on the number of cores: `with one_blas_thread: ...`."""


@runtime_checkable
class Each(Protocol):
    """A map that may make its calls at the same time."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]: ...


@contextmanager
def on_all_cores() -> Iterator[Each]:
    """Yield `each(function, items)`: it returns the results for all items, from all cores with one BLAS thread each.

    The bytes of a result depend on how the work is cut into items, and not on the number of cores.
    """
    with one_blas_thread as threads, ThreadPoolExecutor(threads) as pool:

        def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
            return list(pool.map(function, items))

        yield each
