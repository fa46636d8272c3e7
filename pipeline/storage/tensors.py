"""Dense arrays in files: each file is one Arrow tensor message, memory-mapped where the file is local."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from infrec.kernels.tiles import Tile
from infrec.pipeline.storage.artefact import Artefact


def tensor_bytes(array: np.ndarray) -> pa.Buffer:
    """Return a dense array as one Arrow tensor message."""
    sink = pa.BufferOutputStream()
    pa.ipc.write_tensor(pa.Tensor.from_numpy(np.ascontiguousarray(array)), sink)
    return sink.getvalue()


def read_tensors(artefact: Artefact, stem: str) -> Iterator[np.ndarray]:
    """Yield the arrays in the files `stem-00000.arrow`, `stem-00001.arrow`, … of the artefact.

    They are read-only, and memory-mapped where the artefact is local. Raises `InputError` for a damaged file.
    """
    for name in sorted(artefact.manifest.files):
        if name.startswith(f"{stem}-"):
            yield read_tensor(artefact, name)


def read_tensor(artefact: Artefact, name: str) -> np.ndarray:
    """Return the array in one file of the artefact that holds `tensor_bytes`.

    It is read-only, and memory-mapped where the artefact is local. Raises `InputError` for a damaged file.
    """
    return tensor_of(artefact.read(name))


def tensor_of(content: pa.Buffer) -> np.ndarray:
    """Return the array in one Arrow tensor message. Bytes after the message are ignored."""
    array: np.ndarray = pa.ipc.read_tensor(pa.BufferReader(content)).to_numpy()
    return array


def tensor_name(stem: str, index: int) -> str:
    """Return the name of the file of one array."""
    return f"{stem}-{index:05d}.arrow"


def tile_name(stem: str, i: int, j: int) -> str:
    """Return the name of the file of the tile (i, j)."""
    return f"{stem}-{i:05d}-{j:05d}.arrow"


@dataclass(frozen=True)
class StoredTiles:
    """The lower tiles of a matrix, in files. Each is read when it is asked for, and is not kept in memory."""

    tile: Callable[[int, int], Tile]

    def __getitem__(self, index: tuple[int, int], /) -> np.ndarray:
        return self.tile(*index)


def stored_tiles(artefact: Artefact, stem: str) -> StoredTiles:
    """Return the lower tiles of the matrix `stem` in the files of an artefact.

    A file's checksum is verified when it is first read; if it is wrong, that read raises `InputError`.
    """
    verified: set[str] = set()

    def tile(i: int, j: int) -> Tile:
        name = tile_name(stem, i, j)
        if name in verified:
            return tensor_of((artefact.location / name).read())
        verified.add(name)
        return read_tensor(artefact, name)

    return StoredTiles(tile)
