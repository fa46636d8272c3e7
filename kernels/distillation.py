"""The two levels of Distill-CF: kernel ridge regression on a summary, and its loss on real users.

Source: Sachdeva et al., NeurIPS 2022 (arXiv 2206.02626). A summary S (m synthetic users × I items) trains an ∞-AE in
closed form, and is judged by how that predicts blocks of real users x:

    α(S) = (K_SS + λ tr(K_SS)/m · 1)⁻¹ S,      P = K(x, S) α,      loss(P): see `kernels.multinomial`.

The gradient goes through α, by implicit differentiation of the solve, and through K(x, S), block of users by block of
users: dα and dS of the blocks add up, so they can be computed anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float

from kernels.inner_products import dense_on_device
from kernels.multinomial import Entries, multinomial_gradients, multinomial_loss
from kernels.ntk import NTK, ntk_block
from kernels.sparse import product, with_empty_rows

_PRECISION = jax.lax.Precision.HIGHEST
_SHAPE_STEP = 128
"""Blocks are padded to multiples of this many users: XLA compiles once a shape."""


def summary_kernel(ntk: NTK, summary: Float[Array, "budget items"]) -> Float[Array, "budget budget"]:
    """K_SS, differentiable, with the diagonal from its own formula."""
    inner = jnp.matmul(summary, summary.T, precision=_PRECISION)
    return kernel_of_products(ntk, inner, jnp.sum(summary * summary, axis=1), items=summary.shape[1])


def kernel_of_products(
    ntk: NTK, inner: Float[Array, "budget budget"], squares: Float[Array, " budget"], *, items: int
) -> Float[Array, "budget budget"]:
    """K_SS from S Sᵀ and its diagonal."""
    on_diagonal = jnp.eye(len(squares), dtype=bool)
    return jnp.where(on_diagonal, ntk.diagonal(squares, items=items), ntk(inner, squares, squares, items=items))


def with_ridge(kernel: Float[Array, "budget budget"], lam: float | Array) -> Float[Array, "budget budget"]:
    """K_SS + λ tr(K_SS)/m · 1."""
    return kernel + lam * jnp.trace(kernel) / len(kernel) * jnp.eye(len(kernel))


def summary_dual(ntk: NTK, summary: Float[Array, "budget items"], lam: float | Array) -> Float[Array, "budget items"]:
    """α = (K_SS + λ tr(K_SS)/m · 1)⁻¹ S, differentiable in S and λ. Not finite where K_SS + c·1 is not definite."""
    matrix = with_ridge(summary_kernel(ntk, summary), lam)
    alpha: Array = jax.scipy.linalg.solve(matrix, summary, assume_a="pos")
    return alpha


class Batch(NamedTuple):
    """Users to be predicted. All matrices are CSR, users × items, targets and left-out items binary and disjoint."""

    context: sp.csr_array
    """The kernel's input."""
    targets: sp.csr_array
    left_out: sp.csr_array
    """Items that are not in the softmax."""
    weights: Float[np.ndarray, " users"]
    """Of each user in the sum."""


class BlockGradients(NamedTuple):
    """The loss of a block of users, added up, and its derivatives with respect to α and, through K(x, S), to S."""

    loss: float
    dual: Float[np.ndarray, "budget items"]
    summary: Float[np.ndarray, "budget items"]


def block_gradients(
    ntk: NTK,
    summary: Float[np.ndarray, "budget items"],
    dual: Float[np.ndarray, "budget items"],
    batch: Batch,
) -> BlockGradients:
    """The multinomial loss of a batch of users under S and α (each held fixed), on JAX's default device."""
    if jax.default_backend() == "cpu":
        return _on_cpu(ntk, summary, dual, batch)
    return accelerator_block_gradients(ntk, summary, dual, batch)


def _on_cpu(
    ntk: NTK,
    summary: Float[np.ndarray, "budget items"],
    dual: Float[np.ndarray, "budget items"],
    batch: Batch,
) -> BlockGradients:
    """Sparse and dense products in NumPy and SciPy, the kernel and its derivative in JAX.

    A summary whose columns are contiguous is not laid out anew; dS is laid out like that.
    """
    context, *target = batch
    users, items = context.shape
    surplus = -users % _SHAPE_STEP  # XLA compiles once a shape
    inner = np.pad(product(context, np.ascontiguousarray(summary.T)), ((0, surplus), (0, 0)))
    norms = np.pad(np.asarray(context.multiply(context).sum(axis=1), summary.dtype).ravel(), (0, surplus))
    squares = np.einsum("ui,ui->u", summary, summary)
    kernel = np.asarray(ntk_block(ntk, inner, norms, squares, items=items))[:users]
    loss, d_kernel, d_dual = multinomial_gradients(kernel, dual, *target)
    d_inner, d_squares = _kernel_pull_back(
        ntk, inner, norms, squares, np.pad(d_kernel, ((0, surplus), (0, 0))), items=items
    )
    d_summary = product(context.T.tocsr(), np.asarray(d_inner)[:users]).T
    d_summary += 2 * np.asarray(d_squares)[:, None] * summary
    return BlockGradients(loss, d_dual, d_summary)


def _pull_kernel_back(
    ntk: NTK, inner: Array, norms: Array, squares: Array, cotangent: Array, *, items: int
) -> tuple[Array, Array]:
    _, pull_back = jax.vjp(lambda inner, squares: ntk(inner, norms, squares, items=items), inner, squares)
    d_inner, d_squares = pull_back(cotangent)
    return d_inner, d_squares


_kernel_pull_back = jax.jit(_pull_kernel_back, static_argnames=("ntk", "items"))


def accelerator_block_gradients(
    ntk: NTK,
    summary: Float[np.ndarray, "budget items"],
    dual: Float[np.ndarray, "budget items"],
    batch: Batch,
) -> BlockGradients:
    """`block_gradients` as one compiled function on JAX's default device: for GPUs and TPUs."""
    context, targets, left_out = (with_empty_rows(matrix, _SHAPE_STEP) for matrix in batch[:3])
    loss, (d_dual, d_summary) = loss_and_gradients(
        jnp.asarray(dual),
        jnp.asarray(summary),
        ntk,
        dense_on_device(context).astype(jnp.float32),
        entries(targets),
        entries(left_out),
        jnp.asarray(np.pad(batch.weights, (0, context.shape[0] - len(batch.weights)))),
    )
    return BlockGradients(float(loss), np.asarray(d_dual), np.asarray(d_summary))


def _loss(
    dual: Array, summary: Array, ntk: NTK, context: Array, targets: Entries, left_out: Entries, weights: Array
) -> Array:
    inner = jnp.matmul(context, summary.T, precision=_PRECISION)
    norms, squares = jnp.sum(context * context, axis=1), jnp.sum(summary * summary, axis=1)
    kernel = ntk(inner, norms, squares, items=context.shape[1])
    return multinomial_loss(kernel, dual, targets, left_out, weights)


loss_and_gradients = jax.jit(jax.value_and_grad(_loss, argnums=(0, 1)), static_argnames="ntk")
"""Of a block that lies on the device already: the loss, then (dα, dS)."""


def entries(matrix: sp.csr_array) -> Entries:
    """On the device, padded to a power of two with a row that is not there."""
    padding = (1 << max(matrix.nnz - 1, 1).bit_length()) - matrix.nnz
    row_of = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
    return Entries(
        jnp.asarray(np.pad(row_of, (0, padding), constant_values=matrix.shape[0])),
        jnp.asarray(np.pad(matrix.indices.astype(np.int32), (0, padding))),
    )
