"""The kernel system: remote actors compute tile rows of the Gram matrix, the driver assembles them."""

from __future__ import annotations

import numpy as np

from kernels.kernel_matrix import KernelRows, kernel_block, kernel_diagonal_block
from kernels.normalisation import DegreeNormalisation, Exponents
from kernels.ntk import NTK
from kernels.tiles import Layout, Tiles
from pipeline.dataset import Dataset
from pipeline.memory import give_back_memory
from pipeline.progress import Report, silent
from pipeline.workers import Workers


class GramWorker:
    """Holds the sparse training users and computes the kernel between its share of them and all before them.

    A tile row is a pure function of (dataset, kernel, exponents, index): a worker that died is replaced and loses
    nothing but the row in hand.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._train = dataset.training_matrix()
        self._layout = Layout(self._train.shape[0])
        self._exponents: Exponents | None = None

    def tile_row(self, i: int, ntk: NTK, exponents: Exponents) -> list[np.ndarray]:
        """The lower tiles (i, 0) … (i, i), float32."""
        if exponents != self._exponents:
            self._rows = KernelRows.of(DegreeNormalisation.of(self._train, exponents)(self._train))
            self._exponents = exponents
        own, others = self._rows[self._layout.span(i)], self._layout.spans()[:i]
        row = [
            *(kernel_block(ntk, own, self._rows[span]) for span in others),
            kernel_diagonal_block(ntk, own),
        ]
        give_back_memory()
        return row


def assemble(
    workers: Workers,
    target: Tiles,
    layout: Layout,
    *,
    ntk: NTK,
    exponents: Exponents,
    report: Report = silent,
) -> None:
    """target ← the lower tiles of the Gram matrix K(X, X) of the training users, computed by `GramWorker`s."""
    # The longest rows first: the actors then end together
    order = list(reversed(range(layout.count)))
    rows = workers.map("tile_row", [(i, ntk, exponents) for i in order])
    for done, (i, tiles) in enumerate(zip(order, rows, strict=True), start=1):
        for j, tile in enumerate(tiles):
            target[i, j] = tile.copy()  # out of the object store, which is bounded
        report(f"Gram rows ({exponents})", done, layout.count)
