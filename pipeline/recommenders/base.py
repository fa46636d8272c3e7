"""What every recommender is to the rest of the pipeline: scores for blocks of users, and a model artefact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float

from kernels.metrics import METRICS
from kernels.tiles import LARGEST_CALL, Tile
from pipeline.artefact import Artefact, ArtefactWriter, FileRecord
from pipeline.dataset import ITEMS, Dataset
from pipeline.errors import InputError

VALIDATION = "validation.parquet"


class Recommender(Protocol):
    """A trained model, read from its artefact, that scores all items for users given by their histories."""

    name: ClassVar[str]

    @classmethod
    def load(cls, artefact: Artefact) -> Self: ...

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """A score for every item, float32; `context` is binary CSR users × items. Seen items are scored as well."""
        ...


@dataclass(frozen=True)
class Trial:
    """One candidate of a model selection: its hyper-parameters and its metrics on the validation part."""

    parameters: Mapping[str, float]
    metrics: Mapping[str, float]


def check_search(lambdas: Sequence[float], select: str) -> None:
    """Raise `InputError` for an empty grid, a λ that is negative or not a number, or an unknown metric."""
    if not lambdas or not all(0 <= lam < float("inf") for lam in lambdas):
        raise InputError(f"λ must be finite and not negative, the grid is {list(lambdas)}.")
    if select not in METRICS:
        raise InputError(f"--select {select} is not a metric: there are {', '.join(METRICS)}.")


def check_dense(rows: int, option: str) -> None:
    """Raise `InputError` where `option` asks for a dense system of more rows than LAPACK is given in one call."""
    if rows > LARGEST_CALL:
        raise InputError(f"{option} is for dense systems of at most {LARGEST_CALL:,} rows, this would be {rows:,}.")


def best_trial(trials: Sequence[Trial], metric: str) -> Trial:
    """The trial with the highest metric; of equal ones the first."""
    return max(trials, key=lambda trial: trial.metrics[metric])


def best_so_far(trials: Sequence[Trial], metric: str) -> dict[str, float]:
    """How a search goes, for its `Report`."""
    return {f"best {metric}": best_trial(trials, metric).metrics[metric]} if trials else {}


def publish_model(
    writer: ArtefactWriter,
    dataset: Dataset,
    *,
    config: Mapping[str, Any],
    counts: Mapping[str, Any],
    trials: Sequence[Trial] = (),
    tables: Mapping[str, pa.Table] | None = None,
    arrays: Iterable[tuple[str, np.ndarray]] = (),
    written: Mapping[str, FileRecord] | None = None,
) -> Artefact:
    """Write a model's tables and arrays with the dataset's item table and publish it.

    Arrays are written as they come, one at a time, so that a model may be larger than memory. What is `written` lies in
    the writer's staging directory already.
    """
    files: dict[str, FileRecord] = {ITEMS: writer.write_table(ITEMS, dataset.items()), **(written or {})}
    for name, table in (tables or {}).items():
        files[name] = writer.write_table(name, table)
    for name, array in arrays:
        files[name] = writer.write(name, tensor_bytes(array))
    if trials:
        rows = [{**trial.parameters, **trial.metrics} for trial in trials]
        files[VALIDATION] = writer.write_table(VALIDATION, pa.Table.from_pylist(rows))
    return writer.publish(config=config, inputs={"dataset": dataset.manifest.fingerprint()}, counts=counts, files=files)


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
