"""The multinomial loss of blocks of users whose scores are a matrix product, and its gradient, derived by hand.

The scores are P = Φ β (users × items). User u has targets T_u, a weight w_u and items E_u that are left out of the
softmax. Then

    loss = Σ_u w_u [ |T_u| · log Σ_{i∉E_u} exp P_ui − Σ_{i∈T_u} P_ui ],
    dP_ui = w_u [ |T_u| exp(P_ui)/Σ_{j∉E_u} exp(P_uj) − 1[i∈T_u] ]  (0 where i∈E_u),   dΦ = dP βᵀ,   dβ = Φᵀ dP.

Three matrix products are the heavy work. Processors multiply bfloat16 twice (CPUs) to sixteen times (GPUs) as fast as
float32. So the factors may be rounded to bfloat16, which changes each entry by up to 2⁻⁹ of itself; sums are float32.
A caller that rounds them ensures that nothing cancels in the products: `kernels.outer_loss` whitens Φ and β.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8

from infrec.kernels.inner_products import dense_on_device
from infrec.kernels.sparse import rows_of_entries


class Factor(NamedTuple):
    """A matrix that is multiplied from both sides: it and its transpose, each laid out row by row.

    XLA's product for CPUs runs at half its speed where it has to transpose a bfloat16 factor.
    """

    matrix: Float[Array, "rows columns"]
    transposed: Float[Array, "columns rows"]

    @classmethod
    def of(cls, matrix: Float[Array, "rows columns"], dtype: DTypeLike) -> Factor:
        """Round the matrix to `dtype`."""
        rounded = matrix.astype(dtype)
        return cls(rounded, rounded.T)


def marks(targets: sp.csr_array, left_out: sp.csr_array) -> Int8[Array | np.ndarray, "users items"]:
    """Return a dense matrix that is 1 at targets, −1 at items that are left out, and 0 elsewhere.

    `targets` and `left_out` are binary CSR matrices (users × items) without a common entry. The result is a NumPy array
    on a CPU, and lies on the device on an accelerator.
    """
    if jax.default_backend() != "cpu":
        return dense_on_device(targets) - dense_on_device(left_out)
    users, items = targets.shape
    dense = np.zeros(users * items, np.int8)
    for matrix, mark in ((targets, 1), (left_out, -1)):
        dense[rows_of_entries(matrix) * items + matrix.indices] = mark
    return dense.reshape(users, items)


class MultinomialGradients(NamedTuple):
    """The loss of some users and its derivatives with respect to Φ and β."""

    losses: Float[Array, " users"]
    """The loss of each user, weighted."""
    phi: Float[Array, "users budget"]
    """dΦ."""
    beta: Float[Array, "budget items"]
    """dβ, summed over the blocks of users so far."""


@partial(jax.jit, donate_argnames="d_beta")
def add_multinomial_gradients(
    d_beta: Float[Array, "budget items"],
    phi: Factor,
    beta: Factor,
    marked: Int8[Array, "users items"],
    counts: Float[Array, " users"],
    weights: Float[Array, " users"],
) -> MultinomialGradients:
    """Return the losses of a block of users, their dΦ, and `d_beta` plus their dβ.

    The sums have the dtype of `d_beta`, whose memory is given up to the result. A user without targets contributes
    nothing.

    Args:
        d_beta: the sum of dβ over the blocks before.
        phi: Φ.
        beta: β.
        marked: from `marks`: 1 at targets, −1 at items that are left out.
        counts: |T_u|, the number of targets of each user.
        weights: w_u.
    """
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST, preferred_element_type=d_beta.dtype)
    scores = product(phi.matrix, beta.matrix)
    is_target = marked > 0
    shown = jnp.where(marked < 0, -jnp.inf, scores)
    most = jnp.maximum(shown.max(axis=1), np.finfo(scores.dtype).min)  # finite even where all items are left out
    exponentials = jnp.exp(shown - most[:, None])
    total = jnp.maximum(exponentials.sum(axis=1), np.finfo(scores.dtype).tiny)
    losses = weights * (counts * (jnp.log(total) + most) - jnp.sum(jnp.where(is_target, scores, 0), axis=1))
    d_scores = exponentials * (weights * counts / total)[:, None] - jnp.where(is_target, weights[:, None], 0)
    d_scores = d_scores.astype(phi.matrix.dtype)
    return MultinomialGradients(losses, product(d_scores, beta.transposed), d_beta + product(phi.transposed, d_scores))
