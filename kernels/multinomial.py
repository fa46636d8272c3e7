"""The multinomial loss of blocks of users whose scores are a matrix product, and its gradient, derived by hand.

The scores are P = Φ β (users × items). User u has targets T_u, a weight w_u and items E_u that are left out of the
softmax. Then

    loss = Σ_u w_u [ |T_u| · log Σ_{i∉E_u} exp P_ui − Σ_{i∈T_u} P_ui ],
    dP_ui = w_u [ |T_u| exp(P_ui)/Σ_{j∉E_u} exp(P_uj) − 1[i∈T_u] ]  (0 where i∈E_u),   dΦ = dP βᵀ,   dβ = Φᵀ dP.

Three matrix products are the heavy work. GPUs multiply bfloat16 sixteen times as fast as float32, CPUs with
instructions for it at least twice as fast. So the factors may be rounded to bfloat16, which changes each entry by up to
2⁻⁹ of itself; sums are float32. A caller that rounds them ensures that nothing cancels in the products:
`kernels.outer_loss` whitens Φ and β. On other CPUs NumPy multiplies the same rounded factors in float32, twice as fast
as XLA. So the kind of CPU changes the order of sums and nothing else. Factors that are not rounded are NumPy's on any
CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8

from infrec.kernels.inner_products import dense_on_device
from infrec.kernels.sparse import rows_of_entries


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


class MultinomialSums(ABC):
    """The losses of blocks of users and their dβ, added up. β is held fixed."""

    def __init__(self) -> None:
        self._losses: list[Float[Array, " users"]] = []

    @abstractmethod
    def add(
        self,
        phi: Float[Array, "users budget"],
        marked: Int8[Array | np.ndarray, "users items"],
        counts: Float[np.ndarray, " users"],
        weights: Float[np.ndarray, " users"],
    ) -> Float[Array | np.ndarray, "users budget"]:
        """Add a block of users, and return its dΦ. A user without targets contributes nothing.

        Args:
            phi: Φ.
            marked: from `marks`: 1 at targets, −1 at items that are left out.
            counts: |T_u|, the number of targets of each user.
            weights: w_u.
        """

    def loss(self) -> float:
        """Return the loss of all users so far, summed in float64."""
        return float(sum(np.asarray(block).sum(dtype=np.float64) for block in self._losses))

    @abstractmethod
    def d_beta(self) -> Float[np.ndarray, "budget items"]:
        """Return dβ of all users so far, in the dtype of β."""


def multinomial_sums(beta: Float[Array | np.ndarray, "budget items"], factors: DTypeLike) -> MultinomialSums:
    """Return empty sums for this β, on JAX's default device. Factors of products are rounded to the dtype `factors`."""
    if jax.default_backend() != "cpu" or (factors == jnp.bfloat16 and cpu_multiplies_bfloat16()):
        return _SumsInXLA(beta, factors)
    return _SumsInNumPy(beta, factors)


@cache
def cpu_multiplies_bfloat16() -> bool:
    """Tell whether this machine's CPU has instructions that multiply bfloat16. Only Linux on x86 says so."""
    known = Path("/proc/cpuinfo")
    return known.exists() and not {"avx512_bf16", "amx_bf16"}.isdisjoint(known.read_text().split())


class _SumsInXLA(MultinomialSums):
    """The sums where XLA multiplies in the dtype `factors`."""

    def __init__(self, beta: Float[Array | np.ndarray, "budget items"], factors: DTypeLike) -> None:
        super().__init__()
        self._beta, self._factors = _factor(beta, factors), factors
        self._d_beta = jnp.zeros(beta.shape, beta.dtype)

    def add(self, phi: Array, marked: Array | np.ndarray, counts: np.ndarray, weights: np.ndarray) -> Array:
        block = _factor(phi, self._factors), self._beta, marked, counts, weights
        d_phi: Array
        losses, d_phi, self._d_beta = _added(self._d_beta, *block)
        self._losses.append(losses)
        return d_phi

    def d_beta(self) -> np.ndarray:
        return np.asarray(self._d_beta)


class _SumsInNumPy(MultinomialSums):
    """The sums where NumPy multiplies what has been rounded to the precision of the dtype `factors`."""

    def __init__(self, beta: Float[Array | np.ndarray, "budget items"], factors: DTypeLike) -> None:
        super().__init__()
        self._beta, self._factors = np.asarray(_rounded(beta, factors)), factors
        self._d_beta = np.zeros(beta.shape, beta.dtype)

    def add(self, phi: Array, marked: Array | np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
        features = np.asarray(_rounded(phi, self._factors))
        losses, d_scores = _losses_and_d_scores(features @ self._beta, marked, counts, weights)
        self._losses.append(losses)
        rounded = np.asarray(_rounded(d_scores, self._factors))
        self._d_beta += features.T @ rounded
        d_phi: np.ndarray = rounded @ self._beta.T
        return d_phi

    def d_beta(self) -> np.ndarray:
        return self._d_beta


class _Factor(NamedTuple):
    """A matrix that is multiplied from both sides: it and its transpose, each laid out row by row.

    XLA's product for CPUs runs at half its speed where it has to transpose a bfloat16 factor.
    """

    matrix: Float[Array, "rows columns"]
    transposed: Float[Array, "columns rows"]

    @classmethod
    def of(cls, matrix: Float[Array, "rows columns"], dtype: DTypeLike) -> _Factor:
        """Round the matrix to `dtype`."""
        narrow = matrix.astype(dtype)
        return cls(narrow, narrow.T)


_factor = jax.jit(_Factor.of, static_argnums=1)


@partial(jax.jit, static_argnums=1)
def _rounded(matrix: Float[Array, "rows columns"], precision: DTypeLike) -> Float[Array, "rows columns"]:
    """Return `matrix` in its own dtype, with no more digits than the dtype `precision` has."""
    kept = jnp.finfo(precision)  # type: ignore[no-untyped-call]
    result: Array = jax.lax.reduce_precision(matrix, kept.nexp, kept.nmant)
    return result


@partial(jax.jit, donate_argnums=0)
def _added(
    d_beta: Float[Array, "budget items"],
    phi: _Factor,
    beta: _Factor,
    marked: Int8[Array, "users items"],
    counts: Float[Array, " users"],
    weights: Float[Array, " users"],
) -> tuple[Float[Array, " users"], Float[Array, "users budget"], Float[Array, "budget items"]]:
    """Return the losses of a block of users, their dΦ, and `d_beta` plus their dβ, in the memory of `d_beta`."""
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST, preferred_element_type=d_beta.dtype)
    losses, d_scores = _losses_and_d_scores(product(phi.matrix, beta.matrix), marked, counts, weights)
    d_scores = d_scores.astype(phi.matrix.dtype)
    return losses, product(d_scores, beta.transposed), d_beta + product(phi.transposed, d_scores)


@jax.jit
def _losses_and_d_scores(
    scores: Float[Array, "users items"],
    marked: Int8[Array, "users items"],
    counts: Float[Array, " users"],
    weights: Float[Array, " users"],
) -> tuple[Float[Array, " users"], Float[Array, "users items"]]:
    """Return the weighted loss of each user, and dP, from the scores P."""
    is_target = marked > 0
    shown = jnp.where(marked < 0, -jnp.inf, scores)
    most = jnp.maximum(shown.max(axis=1), np.finfo(scores.dtype).min)  # finite even where all items are left out
    exponentials = jnp.exp(shown - most[:, None])
    total = jnp.maximum(exponentials.sum(axis=1), np.finfo(scores.dtype).tiny)
    losses = weights * (counts * (jnp.log(total) + most) - jnp.sum(jnp.where(is_target, scores, 0), axis=1))
    return losses, exponentials * (weights * counts / total)[:, None] - jnp.where(is_target, weights[:, None], 0)
