"""Kernel ridge regression in its dual form.

X (n users × items) holds the support users: those whom the system is trained on. K = K(X, X) is their Gram matrix, and

    c = λ tr(K)/n,    M = (K + c·1)⁻¹,    α = M X,    scores(x) = K(x, X) α.

X is always sparse. Callers pass its transpose, so that products run along contiguous memory. Two facts save work. As
K M X = X − c α, the scores of the support users' own unseen items rank as −α does. And (K(x, X) M) X needs no α at all.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from infrec.kernels import tiles
from infrec.kernels.sparse import transposed_product
from infrec.kernels.tiles import ArrayTiles, FinishedTiles, Layout

_PROBES = 16
"""The number of right-hand sides on which `residual` looks."""


class Dual(Protocol):
    """A solved system, ready to be applied to new users. Its arrays are float32 where the kernel and X are."""

    def scores(self, kernel: Float[np.ndarray, "support users"]) -> Float[np.ndarray, "users items"]:
        """Return the scores K(x, X) α of new users x, from the kernel block K(X, x)."""
        ...

    def coefficients(self, users: Int[np.ndarray, " users"]) -> Float[np.ndarray, "users items"]:
        """Return the rows of α at the positions `users` (ascending), in memory of their own."""
        ...


@dataclass(frozen=True)
class CoefficientDual:
    """α itself, in blocks of support users.

    This is the smaller form where there are fewer items than support users.
    """

    blocks: list[Float[np.ndarray, "_ items"]]

    @classmethod
    def of(cls, solution: InverseDual, out: Float[np.ndarray, "support items"]) -> CoefficientDual:
        """Compute α from the inverse on all cores, and keep it in `out`."""
        spans = solution.layout.spans()

        def multiply(span: slice) -> Float[np.ndarray, "_ items"]:
            columns = tiles.columns(solution.inverse, solution.layout, np.arange(span.start, span.stop))
            return transposed_product(solution.targets, columns, out[span])

        with tiles.one_blas_thread as threads, ThreadPoolExecutor(threads) as pool:
            return cls(list(pool.map(multiply, spans)))

    def coefficients(self, users: Int[np.ndarray, " users"]) -> Float[np.ndarray, "users items"]:
        starts = np.cumsum([0, *(len(block) for block in self.blocks)])
        parts = np.split(users, np.searchsorted(users, starts[1:-1]))
        return np.concatenate(
            [block[part - start] for block, part, start in zip(self.blocks, parts, starts[:-1], strict=True)]
        )

    def scores(self, kernel: Float[np.ndarray, "support users"]) -> Float[np.ndarray, "users items"]:
        starts = np.cumsum([0, *(len(block) for block in self.blocks)])
        total: np.ndarray = kernel[: starts[1]].T @ self.blocks[0]
        product = np.empty_like(total)
        for start, stop, block in zip(starts[1:], starts[2:], self.blocks[1:], strict=False):
            np.matmul(kernel[start:stop].T, block, out=product)
            total += product
        return total


@dataclass(frozen=True)
class InverseDual:
    """The lower tiles of M and the sparse Xᵀ. Nothing here is a dense matrix of size users × items."""

    inverse: FinishedTiles
    """The lower tiles of M."""
    layout: Layout
    targets: sp.csr_array
    """Xᵀ, items × support users."""

    def scores(self, kernel: Float[np.ndarray, "support users"]) -> Float[np.ndarray, "users items"]:
        return transposed_product(self.targets, tiles.multiply(self.inverse, self.layout, kernel))

    def coefficients(self, users: Int[np.ndarray, " users"]) -> Float[np.ndarray, "users items"]:
        return transposed_product(self.targets, tiles.columns(self.inverse, self.layout, users))


def ridge_of(gram: FinishedTiles, layout: Layout, lam: float) -> float:
    """Return the ridge c = λ tr(K)/n, from the lower tiles of K."""
    return lam * tiles.trace(gram, layout) / layout.size


def solve_ridge(gram: FinishedTiles, layout: Layout, ridge: float, out: ArrayTiles) -> None:
    """Write the lower tiles of M = (K + c·1)⁻¹ to `out`, from the lower tiles of K (n × n).

    The dtype is that of `out`. Raises `tiles.NotPositiveDefinite` where K + c·1 has no Cholesky factor in it.
    """
    tiles.copy_with_ridge(gram, out, layout, ridge)
    tiles.invert(out, layout)


def residual(gram: FinishedTiles, inverse: FinishedTiles, layout: Layout, ridge: float, targets: sp.csr_array) -> float:
    """Return the true relative residual ‖(K + c·1) M B − B‖ / ‖B‖ (Frobenius) on the system's own right-hand sides.

    These are B = X R, with random signs R (items × 16). They give an unbiased look at all columns of X for the price of
    16. `gram` and `inverse` are the lower tiles of K and M, and `targets` is Xᵀ, items × support users.
    """
    signs = np.random.default_rng(0).choice(np.array([-1.0, 1.0], targets.dtype), size=(targets.shape[0], _PROBES))
    right = np.asarray(targets.T @ signs)
    solved = tiles.multiply(inverse, layout, right)
    defect = tiles.multiply(gram, layout, solved) + ridge * solved - right
    with tiles.one_blas_thread:
        return float(np.linalg.norm(defect) / np.linalg.norm(right))
