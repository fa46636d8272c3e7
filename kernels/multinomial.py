"""The multinomial loss of blocks of users whose scores are a product, and its gradient by hand.

With scores P = K α (users × items), a target set T_u, a weight w_u and items E_u that are left out of the softmax,

    loss = Σ_u w_u [ |T_u| · log Σ_{i∉E_u} exp P_ui − Σ_{i∈T_u} P_ui ],
    dP_ui = w_u [ |T_u| exp(P_ui)/Σ_{j∉E_u} exp(P_uj) − 1[i∈T_u] ]  (0 where i∈E_u),   dK = dP αᵀ,   dα = Kᵀ dP.

Three matrix products are the heavy work; targets and left-out items are sparse; P and dP share one block's memory. On a
CPU the products are NumPy's, which are twice as fast as XLA's there; an accelerator has the same in JAX.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

_BLOCK_ENTRIES = 1 << 21
"""Entries of a block of P: 8 MB."""
_CACHED_ENTRIES = 1 << 17
"""Entries on which the element-wise work is done at once: half a MB stays in a core's L2."""
_PRECISION = jax.lax.Precision.HIGHEST


class Gradients(NamedTuple):
    """The loss of some users, added up, and its derivatives."""

    loss: float
    kernel: Float[np.ndarray, "users budget"]
    dual: Float[np.ndarray, "budget items"]


def multinomial_gradients(
    kernel: Float[np.ndarray, "users budget"],
    dual: Float[np.ndarray, "budget items"],
    targets: sp.csr_array,
    left_out: sp.csr_array,
    weights: Float[np.ndarray, " users"],
) -> Gradients:
    """The loss and its gradients, on this CPU; a user without targets contributes nothing.

    `targets` and `left_out` are binary CSR, users × items, and disjoint.
    """
    users, items = targets.shape
    height = min(max(1, _BLOCK_ENTRIES // items), max(1, users))
    d_kernel = np.empty_like(kernel)
    d_dual = np.zeros_like(dual)
    scores, share = np.empty((height, items), kernel.dtype), np.empty_like(dual)
    loss = 0.0
    for start in range(0, users, height):
        rows = slice(start, min(start + height, users))
        block = scores[: rows.stop - rows.start]
        np.matmul(kernel[rows], dual, out=block)
        part, scale = _exponentials_in_place(block, targets[rows], left_out[rows], weights[rows])
        loss += part
        d_dual += np.matmul((scale * kernel[rows]).T, block, out=share)
        np.matmul(block, dual.T, out=d_kernel[rows])
        d_kernel[rows] *= scale
    return Gradients(loss, d_kernel, d_dual)


def _exponentials_in_place(
    scores: Float[np.ndarray, "users items"],
    targets: sp.csr_array,
    left_out: sp.csr_array,
    weights: Float[np.ndarray, " users"],
) -> tuple[float, Float[np.ndarray, "users 1"]]:
    """P ← dP/s, where s (users × 1) is a factor of each row; the loss, summed in float64, and s.

    s = w |T|/Σ exp P: who multiplies dP by something thin applies it there, for less.
    """
    users, items = scores.shape
    sizes, flat = np.diff(targets.indptr), scores.reshape(-1)
    wanted = _flat_indices(targets)
    reached = np.add.reduceat(np.append(flat[wanted], 0.0), targets.indptr[:-1], dtype=np.float64) * (sizes > 0)
    flat[_flat_indices(left_out)] = -np.inf
    most, total, ones = np.empty((users, 1), scores.dtype), np.empty(users, scores.dtype), np.ones(items, scores.dtype)
    height = max(1, _CACHED_ENTRIES // items)
    for start in range(0, users, height):
        rows = slice(start, start + height)
        block = scores[rows]
        np.max(block, axis=1, keepdims=True, out=most[rows])
        np.maximum(most[rows], np.finfo(block.dtype).min, out=most[rows])  # everything is left out: the row becomes 0
        block -= most[rows]
        np.exp(block, out=block)
        np.matmul(block, ones, out=total[rows])  # faster than a sum
    np.maximum(total, np.finfo(scores.dtype).tiny, out=total)
    loss = np.dot(weights, sizes * (np.log(total, dtype=np.float64) + most[:, 0]) - reached)
    flat[wanted] -= np.repeat(total / np.maximum(sizes, 1).astype(total.dtype), sizes)
    return float(loss), ((sizes * weights).astype(scores.dtype) / total)[:, None]


def _flat_indices(matrix: sp.csr_array) -> Int[np.ndarray, " entries"]:
    """Where the entries lie in the dense matrix, row after row."""
    users, items = matrix.shape
    places: np.ndarray = np.repeat(np.arange(users) * items, np.diff(matrix.indptr)) + matrix.indices
    return places


class Entries(NamedTuple):
    """Where a sparse binary matrix has its ones. An index outside the matrix stands for nothing (padding)."""

    row: Int[Array, " entries"]
    column: Int[Array, " entries"]


@jax.custom_vjp
def multinomial_loss(
    kernel: Float[Array, "users budget"],
    dual: Float[Array, "budget items"],
    targets: Entries,
    left_out: Entries,
    weights: Float[Array, " users"],
) -> Float[Array, ""]:
    """The loss in JAX, for accelerators; its gradients are those of `multinomial_gradients`."""
    return _loss_and_residuals(kernel, dual, targets, left_out, weights)[0]


_Residuals = tuple[Float[Array, "users budget"], Float[Array, "budget items"], Float[Array, "users items"]]


def _loss_and_residuals(
    kernel: Float[Array, "users budget"],
    dual: Float[Array, "budget items"],
    targets: Entries,
    left_out: Entries,
    weights: Float[Array, " users"],
) -> tuple[Float[Array, ""], _Residuals]:
    scores = jnp.matmul(kernel, dual, precision=_PRECISION)
    target_weights = weights.at[targets.row].get(mode="fill", fill_value=0.0)
    counts = jnp.zeros_like(weights).at[targets.row].add(target_weights, mode="drop")
    shown = scores.at[left_out.row, left_out.column].set(-jnp.inf, mode="drop")
    most = shown.max(axis=1, keepdims=True)
    most = jnp.where(jnp.isfinite(most), most, 0.0)
    total = jnp.maximum(jnp.exp(shown - most).sum(axis=1, keepdims=True), np.finfo(scores.dtype).tiny)
    at_targets = scores.at[targets.row, targets.column].get(mode="fill", fill_value=0.0)
    loss = jnp.sum(counts * (jnp.log(total) + most)[:, 0]) - jnp.sum(target_weights * at_targets)
    gradient = jnp.exp(shown - most) * (counts[:, None] / total)
    return loss, (kernel, dual, gradient.at[targets.row, targets.column].add(-target_weights, mode="drop"))


def _pull_back(residuals: _Residuals, cotangent: Array) -> tuple[Array, Array, None, None, None]:
    kernel, dual, gradient = residuals
    gradient = gradient * cotangent
    return (
        jnp.matmul(gradient, dual.T, precision=_PRECISION),
        jnp.matmul(kernel.T, gradient, precision=_PRECISION),
        None,
        None,
        None,
    )


multinomial_loss.defvjp(_loss_and_residuals, _pull_back)
