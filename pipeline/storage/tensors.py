"""Dense arrays in files: one Arrow tensor message each, memory-mapped where the file is local."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from infrec.kernels.tiles import Tile
from infrec.pipeline.storage.artefact import Artefact


def tensor_bytes(array: np.ndarray) -> pa.Buffer:
    """A dense array as one Arrow tensor message."""
    sink = pa.BufferOutputStream()
    pa.ipc.write_tensor(pa.Tensor.from_numpy(np.ascontiguousarray(array)), sink)
    return sink.getvalue()


def read_tensors(artefact: Artefact, stem: str) -> Iterator[np.ndarray]:
    """The arrays `stem-00000.arrow`, `stem-00001.arrow`, …: read-only, memory-mapped where the artefact is local."""
    for name in sorted(artefact.manifest.files):
        if name.startswith(f"{stem}-"):
            yield read_tensor(artefact, name)


def read_tensor(artefact: Artefact, name: str) -> np.ndarray:
    """One array that `tensor_bytes` wrote: read-only, memory-mapped where the artefact is local."""
    return tensor_of(artefact.read(name))


def tensor_of(content: pa.Buffer) -> np.ndarray:
    """The array in one Arrow tensor message; what follows the message is ignored."""
    array: np.ndarray = pa.ipc.read_tensor(pa.BufferReader(content)).to_numpy()
    return array


def tensor_name(stem: str, index: int) -> str:
    return f"{stem}-{index:05d}.arrow"


def tile_name(stem: str, i: int, j: int) -> str:
    return f"{stem}-{i:05d}-{j:05d}.arrow"


@dataclass(frozen=True)
class StoredTiles:
    """The lower tiles of a matrix in files: each is read when it is asked for, and held by nobody."""

    tile: Callable[[int, int], Tile]

    def __getitem__(self, index: tuple[int, int], /) -> np.ndarray:
        return self.tile(*index)


def stored_tiles(artefact: Artefact, stem: str) -> StoredTiles:
    """The tiles that lie in the files of an artefact; a file's checksum is verified when it is first read."""
    verified: set[str] = set()

    def tile(i: int, j: int) -> Tile:
        name = tile_name(stem, i, j)
        if name in verified:
            return tensor_of((artefact.location / name).read())
        verified.add(name)
        return read_tensor(artefact, name)

    return StoredTiles(tile)
