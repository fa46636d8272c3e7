"""A kernel system in files: actors make its tiles one from another, for systems larger than memory.

    gram/00002-00001.arrow, factor/…, factor-inverse/…, inverse/…       one Arrow tensor a tile, its SHA-256 behind it

A tile is a pure function of (dataset, kernel, exponents, ridge, index), is written by temporary name and rename, and
never changes. So it does not matter which actor on which node makes it or dies over it, and a run that is begun again
makes what is missing or damaged and nothing else. All that nodes share is the place where the files lie.
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
    """K + c·1 for one kernel and one ridge, and where its tiles lie. Those of K are shared by all ridges."""

    ntk: NTK
    exponents: Exponents
    ridge: float
    """c."""
    layout: Layout
    gram: Location
    solution: Location

    def location(self, node: Node) -> Location:
        place = self.gram if node.stage == Stage.GRAM else self.solution
        return place / node.stage / f"{node.i:05d}-{node.j:05d}.arrow"

    def read(self, node: Node) -> Tile:
        """A finished tile: read-only, memory-mapped where it is local."""
        return tensor_of(self.location(node).read())

    def write(self, node: Node, tile: Tile) -> FileRecord:
        content = tensor_bytes(tile).to_pybytes()
        content += hashlib.sha256(content).digest()
        self.location(node).write(content)
        return FileRecord.of(content)

    def finished(self, node: Node) -> FileRecord | None:
        """What lies there, if it is a whole and undamaged tile."""
        location = self.location(node)
        if not location.exists():
            return None
        content = memoryview(location.read())
        whole = len(content) > _DIGEST and hashlib.sha256(content[:-_DIGEST]).digest() == bytes(content[-_DIGEST:])
        return FileRecord.of(pa.py_buffer(content)) if whole else None

    def stage(self, stage: Stage) -> StoredTiles:
        """One of its matrices, when all of its tiles are finished."""
        return StoredTiles(lambda i, j: self.read(Node(stage, i, j)))


class SystemWorker:
    """Makes tiles, and judges a solved system by the validation users. Holds the sparse interactions."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self._validation = Validation(dataset, seed=seed)
        self._in_sample = not dataset.has_held_out_users
        self._train = self._validation.histories.training_matrix()
        self._targets = self._train.T.tocsr()
        self._rows: tuple[Exponents, KernelRows] | None = None

    def make(self, node: Node, system: KernelSystem) -> FileRecord:
        """Compute one tile from finished ones and write it."""
        if node.stage == Stage.GRAM:
            tile = self._gram_tile(node, system)
        else:
            tile = make(node, system.layout, system.ridge, system.read)
        return system.write(node, tile)

    def finished(self, node: Node, system: KernelSystem) -> FileRecord | None:
        return system.finished(node)

    def judge(self, block: int, system: KernelSystem) -> BlockMetrics:
        """The share of one block of validation users in the metrics."""
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
    """Let `SystemWorker`s make the tiles of the inverse, and what has to be made for them; records of the inverse's.

    Raises `kernels.tiles.NotPositiveDefinite`.
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
    """What has to be made for the tiles of the inverse that are not finished."""
    missing: set[Node] = set()
    wanted = [Node(Stage.INVERSE, i, j) for i, j in layout.lower()]
    while wanted:
        node = wanted.pop()
        if node not in finished and node not in missing:
            missing.add(node)
            wanted += needs(node, layout)
    return missing
