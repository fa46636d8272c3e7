"""Blocks of the kernel matrix from blocks of sparse users: first the inner products, then the NTK of these."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from infrec.kernels.inner_products import (
    accelerator_inner_products,
    dense_inner_products,
    inner_products,
    product_operand,
    squared_norms,
)
from infrec.kernels.ntk import NTK, ntk_block
from infrec.kernels.sparse import strips, with_empty_rows

_SHAPE_STEP = 512
"""Blocks are padded to a multiple of this many rows.

XLA compiles once for each shape, and the last block of any set of users is shorter than the others.
"""


_SPARSE = 0.02
"""The density of landmarks below which a product with them is faster, and smaller, if they stay sparse."""


@dataclass(frozen=True)
class KernelRows:
    """Sparse users, prepared for the kernel."""

    rows: sp.csr_array
    """The (normalised) CSR rows, users × items."""
    squares: Float[np.ndarray, " rows"]
    """|x|² of every row."""

    @classmethod
    def of(cls, rows: sp.csr_array) -> KernelRows:
        """Compute the squared norms of `rows`."""
        return cls(rows, squared_norms(rows))

    def __getitem__(self, span: slice | Int[np.ndarray, " chosen"]) -> KernelRows:
        """Return the chosen users."""
        return KernelRows(self.rows[span], self.squares[span])

    def padded(self) -> KernelRows:
        """Return the users with all-zero rows after them, up to the next multiple of `_SHAPE_STEP`."""
        rows = with_empty_rows(self.rows, _SHAPE_STEP)
        return KernelRows(rows, np.pad(self.squares, (0, rows.shape[0] - self.rows.shape[0])))


def kernel_block(ntk: NTK, rows: KernelRows, columns: KernelRows) -> Float[np.ndarray, "rows columns"]:
    """Return K(x, y) for every x in `rows` and y in `columns`, float32, as an array on the host.

    JAX's default device computes it. On a CPU the inner products take the route that the density favours; an
    accelerator computes them as one product.
    """
    (users, items), others = rows.rows.shape, columns.rows.shape[0]
    rows, columns = rows.padded(), columns.padded()
    on_cpu = jax.default_backend() == "cpu"
    products = (inner_products if on_cpu else accelerator_inner_products)(rows.rows, columns.rows)
    return np.asarray(ntk_block(ntk, products, rows.squares, columns.squares, items=items))[:users, :others]


@dataclass(frozen=True)
class LandmarkKernel:
    """K(·, Z) for a few rows Z, applied to block after block of users. Z is laid out for the product only once."""

    ntk: NTK
    landmarks: int
    """The number of rows of Z."""
    squares: Float[np.ndarray, " padded"]
    """|z|² of these rows and of the padding."""
    operand: list[np.ndarray] | sp.csr_array | jax.Array
    """Z: on a CPU, its transpose, sparse or in dense strips; on an accelerator, a dense array that lies there already.
    """

    @classmethod
    def of(cls, ntk: NTK, landmarks: KernelRows) -> LandmarkKernel:
        """Lay out Z = `landmarks` for JAX's default device."""
        padded = landmarks.padded()
        operand: list[np.ndarray] | sp.csr_array | jax.Array
        if jax.default_backend() != "cpu":
            operand = product_operand(padded.rows)
        elif landmarks.rows.nnz < _SPARSE * math.prod(landmarks.rows.shape):
            operand = padded.rows.T.tocsr()
        else:
            operand = strips(padded.rows.T.toarray(order="C"))
        return cls(ntk, len(landmarks.squares), padded.squares, operand)

    def __call__(self, users: KernelRows) -> Float[np.ndarray, "users landmarks"]:
        """Return `kernel_block` of `users` and Z."""
        padded = users.padded()
        if isinstance(self.operand, list):
            products = np.hstack([padded.rows @ strip for strip in self.operand])
        elif isinstance(self.operand, sp.csr_array):
            products = (padded.rows @ self.operand).toarray()
        else:
            products = dense_inner_products(product_operand(padded.rows), self.operand)
        block = ntk_block(self.ntk, products, padded.squares, self.squares, items=users.rows.shape[1])
        return np.asarray(block)[: len(users.squares), : self.landmarks]


def kernel_diagonal_block(ntk: NTK, rows: KernelRows) -> Float[np.ndarray, "rows rows"]:
    """Return K(x, y) for every x and y in the same `rows`, float32, as an array on the host.

    The diagonal K(x, x) comes from its own formula, `NTK.diagonal`.
    """
    block = np.array(kernel_block(ntk, rows, rows))
    np.fill_diagonal(block, ntk.diagonal(rows.squares, items=rows.rows.shape[1]))
    return block
