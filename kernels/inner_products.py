"""Inner products of sparse user rows, by the cheapest exact route. Every kernel here is a function of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Float32, Int, Shaped

from infrec.kernels.sparse import product, rows_of_entries

# These are the rates of one core, measured on ML-1M's blocks on an x86 server. Only their ratios matter, and only for
# the choice of a route: all routes give the same numbers on binary rows.
_DENSE_FLOPS = 100e9
_SPARSE_DENSE_FLOPS = 25e9
_SPARSE_SPARSE_PRODUCTS = 0.4e9
_FILL_BYTES = 2e9

_ALIGNMENT = 16
"""The number of items is padded to a multiple of this on an accelerator.

Its int8 units read 16 bytes at once, and XLA itself pads only to multiples of 4.
"""


def squared_norms(rows: sp.csr_array) -> Float[np.ndarray, " rows"]:
    """Return |x|² of every row, in the dtype of the rows. In float32 they are exact integers for binary rows."""
    return np.asarray(rows.multiply(rows).sum(axis=1), dtype=rows.dtype).ravel()


def inner_products(rows: sp.csr_array, columns: sp.csr_array) -> Float[np.ndarray, "rows columns"]:
    """Return ⟨x, y⟩ for every x in `rows` and y in `columns`, dense, computed on this CPU.

    Both are CSR, users × items; the result has their dtype. The product takes the route with the least estimated time
    for these two blocks: dense × dense (many entries), sparse × dense (the usual log) or sparse × sparse (very wide,
    very sparse catalogues). The choice depends on the blocks alone, so the bytes do not depend on which worker computes
    them.
    """
    (m, items), n = rows.shape, columns.shape[0]
    products = float(np.dot(_item_counts(rows).astype(float), _item_counts(columns)))
    word = rows.dtype.itemsize
    seconds = {
        _dense_dense: 2.0 * m * n * items / _DENSE_FLOPS + word * (m + n) * items / _FILL_BYTES,
        _sparse_dense: 2.0 * rows.nnz * n / _SPARSE_DENSE_FLOPS + word * n * items / _FILL_BYTES,
        _sparse_sparse: products / _SPARSE_SPARSE_PRODUCTS + word * m * n / _FILL_BYTES,
    }
    return min(seconds, key=seconds.__getitem__)(rows, columns)


def accelerator_inner_products(rows: sp.csr_array, columns: sp.csr_array) -> Float32[Array, "rows columns"]:
    """Return ⟨x, y⟩ for every x in `rows` and y in `columns`, on JAX's default device: this is for GPUs and TPUs.

    Both are CSR, users × items; the result is dense. Binary rows go through the matrix units as int8 × int8 → int32
    and stay exact. Other rows are multiplied in float32 with no reduced precision inside.
    """
    products: Array = dense_inner_products(product_operand(rows), product_operand(columns))
    return products


def product_operand(rows: sp.csr_array) -> Shaped[Array, "rows aligned_items"]:
    """Return the rows (CSR, users × items), dense on the device, as `dense_inner_products` wants them.

    Items that nobody has fill them up to a multiple of `_ALIGNMENT`. The dtype is that of `dense_on_device`.
    """
    users, items = rows.shape
    aligned = (users, items + -items % _ALIGNMENT)
    return dense_on_device(sp.csr_array((rows.data, rows.indices, rows.indptr), shape=aligned))


@jax.jit
def dense_inner_products(
    left: Shaped[Array, "rows items"], right: Shaped[Array, "columns items"]
) -> Float32[Array, "rows columns"]:
    """Return ⟨x, y⟩ for every pair of rows that already lie on the device. It is exact where both are int8."""
    if left.dtype == right.dtype == jnp.int8:
        contract_items = (((1,), (1,)), ((), ()))
        counts = jax.lax.dot_general(left, right, contract_items, preferred_element_type=jnp.int32)
        return counts.astype(jnp.float32)
    return jnp.matmul(left.astype(jnp.float32), right.astype(jnp.float32).T, precision=jax.lax.Precision.HIGHEST)


def _dense_dense(rows: sp.csr_array, columns: sp.csr_array) -> np.ndarray:
    return np.asarray(np.matmul(rows.toarray(), columns.toarray().T))


def _sparse_dense(rows: sp.csr_array, columns: sp.csr_array) -> np.ndarray:
    return product(rows, columns.T.toarray(order="C"))


def _sparse_sparse(rows: sp.csr_array, columns: sp.csr_array) -> np.ndarray:
    return np.asarray((rows @ columns.T.tocsr()).toarray())


def _item_counts(rows: sp.csr_array) -> Int[np.ndarray, " items"]:
    return np.bincount(rows.indices, minlength=rows.shape[1])


def dense_on_device(rows: sp.csr_array) -> Array:
    """Return the rows (CSR), dense, scattered on the device: int8 where every entry is 1, else float32."""
    binary = bool(np.all(rows.data == 1))
    # Padding the entries to a power of two lets blocks of like size share one compiled scatter. The surplus falls
    # outside the matrix and is dropped
    padding = (1 << max(rows.nnz - 1, 1).bit_length()) - rows.nnz
    row_of = rows_of_entries(rows).astype(np.int32)
    dense: Array = _scatter(
        jnp.asarray(np.pad(row_of, (0, padding), constant_values=rows.shape[0])),
        jnp.asarray(np.pad(rows.indices.astype(np.int32), (0, padding))),
        jnp.asarray(np.pad(rows.data.astype(np.int8 if binary else np.float32), (0, padding))),
        shape=rows.shape,
    )
    return dense


@jax.jit(static_argnames="shape")
def _scatter(row_of: Array, item_of: Array, values: Array, *, shape: tuple[int, int]) -> Array:
    return jnp.zeros(shape, values.dtype).at[row_of, item_of].set(values, mode="drop")
