"""A kernel system in files, for systems larger than memory: workers make its tiles from one another.

    gram/00002-00001.arrow, factor/…, factor-inverse/…, inverse/…       one Arrow tensor a tile, its SHA-256 behind it

A tile is a pure function of (dataset, kernel, exponents, ridge, index). It is written under a temporary name, then
renamed, and it never changes. So it does not matter which worker on which node makes a tile, or dies over it. A run
that is started again makes only the tiles that are missing or damaged. The nodes share only the place where the files
lie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from infrec.kernels.dual import InverseDual
from infrec.kernels.factorisation import Node, Stage, make, needs, nodes
from infrec.kernels.kernel_matrix import KernelRows, kernel_block, kernel_diagonal_block
from infrec.kernels.metrics import BlockMetrics
from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from infrec.kernels.ntk import NTK
from infrec.kernels.tiles import Layout, Tile
from infrec.pipeline.cluster import Report, Workers, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import Validation, validation_scores
from infrec.pipeline.storage import FileRecord, Location, StoredTiles, tensor_bytes, tensor_of

_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class KernelSystem:
    """The system K + c·1 for one kernel and one ridge, and the places of its tiles. All ridges share the tiles of K."""

    ntk: NTK
    exponents: Exponents
    ridge: float
    """The ridge c."""
    layout: Layout
    gram: Location
    solution: Location

    def location(self, node: Node) -> Location:
        """Return the place of a tile's file."""
        place = self.gram if node.stage == Stage.GRAM else self.solution
        return place / node.stage / f"{node.i:05d}-{node.j:05d}.arrow"

    def read(self, node: Node) -> Tile:
        """Read a finished tile. The array is read-only, and memory-mapped if the file is local."""
        return tensor_of(self.location(node).read())

    def write(self, node: Node, tile: Tile) -> FileRecord:
        """Write a tile and its SHA-256."""
        content = tensor_bytes(tile).to_pybytes()
        content += hashlib.sha256(content).digest()
        self.location(node).write(content)
        return FileRecord.of(content)

    def finished(self, node: Node) -> FileRecord | None:
        """Return the record of a tile's file, or None if the tile is missing, incomplete or damaged."""
        location = self.location(node)
        if not location.exists():
            return None
        content = memoryview(location.read())
        whole = len(content) > _DIGEST and hashlib.sha256(content[:-_DIGEST]).digest() == bytes(content[-_DIGEST:])
        return FileRecord.of(pa.py_buffer(content)) if whole else None

    def stage(self, stage: Stage) -> StoredTiles:
        """Return one of the system's matrices. All of its tiles must be finished."""
        return StoredTiles(lambda i, j: self.read(Node(stage, i, j)))


class SystemWorker:
    """A worker that makes tiles, and judges a solved system by the validation users.

    It holds the sparse interactions.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self._validation = Validation(dataset, seed=seed)
        self._in_sample = not dataset.has_held_out_users
        self._train = self._validation.histories.training_matrix()
        self._targets = self._train.T.tocsr()
        self._rows: tuple[Exponents, KernelRows] | None = None

    def make(self, node: Node, system: KernelSystem) -> FileRecord:
        """Compute one tile from finished tiles, and write it."""
        if node.stage == Stage.GRAM:
            tile = self._gram_tile(node, system)
        else:
            tile = make(node, system.layout, system.ridge, system.read)
        return system.write(node, tile)

    def finished(self, node: Node, system: KernelSystem) -> FileRecord | None:
        return system.finished(node)

    def judge(self, block: int, system: KernelSystem) -> BlockMetrics:
        """Return the metrics of one block of validation users."""
        solution = InverseDual(system.stage(Stage.INVERSE), system.layout, self._targets)
        scores = validation_scores(system.ntk, system.exponents, self._train, solution, in_sample=self._in_sample)
        return self._validation.metrics(block, scores)

    def _gram_tile(self, node: Node, system: KernelSystem) -> Float[np.ndarray, "rows columns"]:
        if self._rows is None or self._rows[0] != system.exponents:
            normalisation = DegreeNormalisation.of(self._train, system.exponents)
            self._rows = system.exponents, KernelRows.of(normalisation(self._train))
        own, other = (self._rows[1][system.layout.span(i)] for i in (node.i, node.j))
        return kernel_diagonal_block(system.ntk, own) if node.i == node.j else kernel_block(system.ntk, own, other)


def solve(workers: Workers, system: KernelSystem, *, phase: str, report: Report = silent) -> dict[Node, FileRecord]:
    """Let `SystemWorker`s make the tiles of the inverse and all tiles that these need.

    Tiles that are finished already are not made again. Returns the records of the inverse's tiles. Raises
    `kernels.tiles.NotPositiveDefinite` if the system is not positive definite.
    """
    layout = system.layout
    order = [*(Node(Stage.GRAM, i, j) for i, j in layout.lower()), *nodes(layout)]
    found = [node for node in order if system.location(node).exists()]
    checked = zip(found, workers.map("finished", [(node, system) for node in found]), strict=True)
    records = {node: record for node, record in checked if record is not None}
    missing = _missing(layout, records)
    todo = [node for node in order if node in missing]
    report(phase, len(order) - len(todo), len(order))
    made = workers.graph("make", todo, lambda node: needs(node, layout), system)
    for number, (node, record) in enumerate(made, start=1):
        records[node] = record
        report(phase, len(order) - len(todo) + number, len(order))
    return {Node(Stage.INVERSE, i, j): records[Node(Stage.INVERSE, i, j)] for i, j in layout.lower()}


def _missing(layout: Layout, finished: Mapping[Node, FileRecord]) -> set[Node]:
    """Return the unfinished tiles of the inverse, and all unfinished tiles that these need."""
    missing: set[Node] = set()
    wanted = [Node(Stage.INVERSE, i, j) for i, j in layout.lower()]
    while wanted:
        node = wanted.pop()
        if node not in finished and node not in missing:
            missing.add(node)
            wanted += needs(node, layout)
    return missing
