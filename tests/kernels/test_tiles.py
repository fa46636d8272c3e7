"""The tile algebra against LAPACK on the whole matrix, at sizes around the tile, wherever tiles lie."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from infrec.kernels import tiles
from infrec.kernels.tiles import ArrayTiles, Layout, NotPositiveDefinite, Tiles
from tests.tolerances import assert_solved

TILE = 16
SIZES = [1, TILE - 1, TILE, TILE + 1, 2 * TILE, 5 * TILE + 3]
CONDITION = 100.0


class FileTiles(MutableMapping[tuple[int, int], np.ndarray]):
    """Tiles that lie in files: what is read is a copy, what is not stored again is lost."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def __getitem__(self, index: tuple[int, int]) -> np.ndarray:
        return np.load(self._path(index))

    def __setitem__(self, index: tuple[int, int], tile: np.ndarray) -> None:
        np.save(self._path(index), tile)

    def __delitem__(self, index: tuple[int, int]) -> None:
        self._path(index).unlink()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for path in self._folder.iterdir():
            i, j = path.stem.split("-")
            yield int(i), int(j)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, index: tuple[int, int]) -> Path:
        return self._folder / f"{index[0]}-{index[1]}.npy"


def positive_definite(size: int, dtype: type | np.dtype = np.float64, *, seed: int = 0) -> np.ndarray:
    """With eigenvalues evenly spread, in logarithms, over 1 … CONDITION."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    matrix = (basis * np.geomspace(1, CONDITION, size)) @ basis.T
    return ((matrix + matrix.T) / 2).astype(dtype)


def cut(matrix: np.ndarray, layout: Layout) -> dict[tuple[int, int], np.ndarray]:
    return {(i, j): matrix[layout.span(i), layout.span(j)].copy() for i, j in layout.lower()}


def joined(lower: Tiles, layout: Layout) -> np.ndarray:
    """The lower triangle of tiles as one matrix, zeros above."""
    matrix = np.zeros((layout.size, layout.size), lower[0, 0].dtype)
    for i, j in layout.lower():
        matrix[layout.span(i), layout.span(j)] = lower[i, j]
    return matrix


def symmetric(lower: Tiles, layout: Layout) -> np.ndarray:
    matrix = np.tril(joined(lower, layout))
    return matrix + np.tril(matrix, -1).T


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture(params=SIZES)
def layout(request: pytest.FixtureRequest) -> Layout:
    return Layout(request.param, TILE)


def test_layout_cuts_all_rows_once(layout: Layout) -> None:
    rows = [row for span in layout.spans() for row in range(span.start, span.stop)]
    assert rows == list(range(layout.size))
    assert layout.count == len(layout.spans())
    memory = ArrayTiles(layout)
    for index, tile in cut(np.zeros((layout.size, layout.size)), layout).items():
        assert memory[index].shape == tile.shape
    assert sorted(memory) == sorted(layout.lower())
    assert len(memory) == len(layout.lower())


def test_array_tiles_copy_what_they_are_given(layout: Layout, dtype: np.dtype) -> None:
    matrix = positive_definite(layout.size)
    memory = ArrayTiles(layout, dtype)
    given = cut(matrix, layout)
    memory.update(given)
    for tile in given.values():
        tile[:] = 0
    assert memory[0, 0].dtype == dtype
    np.testing.assert_array_equal(joined(memory, layout), joined(cut(matrix.astype(dtype), layout), layout))
    with pytest.raises(TypeError, match="keeps all its tiles"):
        del memory[0, 0]
    with pytest.raises(KeyError):
        memory[0, 1]


def test_inverse(layout: Layout, dtype: np.dtype) -> None:
    matrix = positive_definite(layout.size)
    lower = cut(matrix.astype(dtype), layout)
    tiles.invert(lower, layout)
    assert joined(lower, layout).dtype == dtype
    assert_solved(symmetric(lower, layout), np.linalg.inv(matrix), condition=CONDITION)
    for i in range(layout.count):  # `multiply` and `columns` read whole diagonal tiles
        assert_solved(lower[i, i], lower[i, i].T, condition=CONDITION)


def test_multiply_and_columns(layout: Layout, dtype: np.dtype) -> None:
    matrix = positive_definite(layout.size, dtype)
    lower = cut(matrix, layout)
    right = np.random.default_rng(1).standard_normal((layout.size, 5)).astype(dtype)
    product = tiles.multiply(lower, layout, right)
    assert product.dtype == dtype
    assert_solved(product, matrix.astype(np.float64) @ right, condition=CONDITION)
    chosen = np.unique(np.random.default_rng(2).integers(layout.size, size=7))
    for some in (chosen, np.arange(layout.size), chosen[:0]):
        np.testing.assert_array_equal(tiles.columns(lower, layout, some), matrix[:, some])


def test_ridge_and_trace(layout: Layout, dtype: np.dtype) -> None:
    matrix = positive_definite(layout.size, dtype)
    source, target = cut(matrix, layout), ArrayTiles(layout, dtype)
    tiles.copy_with_ridge(source, target, layout, 2.5)
    expected = matrix + 2.5 * np.eye(layout.size, dtype=dtype)
    np.testing.assert_array_equal(joined(target, layout), joined(cut(expected, layout), layout))
    np.testing.assert_array_equal(joined(source, layout), joined(cut(matrix, layout), layout))
    assert tiles.trace(source, layout) == pytest.approx(np.trace(matrix, dtype=np.float64), rel=1e-12)


@pytest.mark.parametrize("bad_row", [0, TILE, 5 * TILE + 2])
def test_a_matrix_without_a_factor_is_refused_with_the_rows(bad_row: int, dtype: np.dtype) -> None:
    layout = Layout(5 * TILE + 3, TILE)
    matrix = np.eye(layout.size, dtype=dtype)
    matrix[bad_row, bad_row] = -1
    start = bad_row // TILE * TILE
    message = f"not positive definite in {dtype} at rows {start}–{min(start + TILE, layout.size) - 1}.*larger ridge"
    with pytest.raises(NotPositiveDefinite, match=message):
        tiles.invert(cut(matrix, layout), layout)


def test_a_singular_matrix_is_refused(dtype: np.dtype) -> None:
    layout = Layout(3 * TILE, TILE)
    with pytest.raises(NotPositiveDefinite):
        tiles.invert(cut(-1e-3 * np.eye(layout.size, dtype=dtype) + 1, layout), layout)


def test_products_do_not_ask_where_a_tile_lies(tmp_path: Path) -> None:
    layout = Layout(3 * TILE + 5, TILE)
    in_memory, in_files = cut(positive_definite(layout.size), layout), FileTiles(tmp_path / "matrix")
    in_files.update(in_memory)
    right, some = np.ones((layout.size, 2)), np.array([1, TILE, 3 * TILE])
    assert tiles.trace(in_files, layout) == tiles.trace(in_memory, layout)
    assert tiles.multiply(in_files, layout, right).tobytes() == tiles.multiply(in_memory, layout, right).tobytes()
    assert tiles.columns(in_files, layout, some).tobytes() == tiles.columns(in_memory, layout, some).tobytes()


def test_bytes_do_not_depend_on_the_number_of_cores() -> None:
    """A child process on one core and one on all cores invert the same matrix."""
    all_cores = os.sched_getaffinity(0)
    digests = {_digest_on(cores) for cores in ({min(all_cores)}, all_cores)}
    assert len(digests) == 1


def _digest_on(cores: set[int]) -> str:
    program = (
        f"import os; os.sched_setaffinity(0, {cores}); from tests.kernels.test_tiles import digest; print(digest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    return json.dumps(done.stdout.split())


def digest() -> str:
    """Return a digest of the solver's results on the cores of this process."""
    import scipy.sparse as sp

    from infrec.kernels import dual

    layout = Layout(1000, 192)
    gram = cut(positive_definite(layout.size, np.dtype(np.float32)), layout)
    inverse = ArrayTiles(layout)
    dual.solve_ridge(gram, layout, 0.1, inverse)
    product = tiles.multiply(inverse, layout, np.ones((layout.size, 3), np.float32))
    targets = sp.csr_array(np.eye(40, layout.size, dtype=np.float32))
    residual = dual.residual(gram, inverse, layout, 0.1, targets)
    content = b"".join(inverse[index].tobytes() for index in layout.lower()) + product.tobytes()
    return f"{hashlib.sha256(content).hexdigest()} {residual.hex()}"


def test_blas_is_limited_until_the_last_thread_leaves_and_then_as_before() -> None:
    """Validation works on several blocks of users at once, each of which may multiply tiles."""

    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    before = threads()
    assert tiles.one_blas_thread.__enter__() == max(before)
    with tiles.one_blas_thread as had:
        assert had == max(before)
        tiles.one_blas_thread.__exit__()
        assert threads() == {1}
        tiles.multiply(cut(np.eye(5), Layout(5, 2)), Layout(5, 2), np.ones((5, 1)))
        assert threads() == {1}
    assert threads() == before


def test_any_thread_can_limit_blas() -> None:
    def limited() -> set[int]:
        with tiles.one_blas_thread:
            return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    with ThreadPoolExecutor(1) as another:
        assert another.submit(limited).result() == limited() == another.submit(limited).result() == {1}
