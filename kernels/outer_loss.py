"""The two levels of Distill-CF: kernel ridge regression on a summary, and its loss on real users.

Source: Sachdeva et al., NeurIPS 2022 (arXiv 2206.02626). A summary S (m synthetic users × I items) trains an ∞-AE in
closed form. The loss judges S by the scores P that this ∞-AE gives to blocks of real users x:

    M = K_SS + λ tr(K_SS)/m · 1 = L Lᵀ,      P = K(x, S) M⁻¹ S = Φ β      with Φ = K(x, S) L⁻ᵀ and β = L⁻¹ S.

The loss of P is that of `kernels.multinomial`. The usual form of the solution is α = M⁻¹S. At the tiny λ that summaries
want, the entries of α are hundreds of times greater than the scores that they add up to. In the features Φ the kernel
is white, and nothing cancels: |Φ_x|² ≤ K(x, x). So the factors of the heavy products may be rounded to bfloat16: the
gradient stays about as far from the exact one as in float32 throughout (benchmarks/README.md).

The gradient goes through K(x, S), block of users by block of users, and through M by implicit differentiation. A block
has dβ = Φᵀ dP and dK = dP βᵀ L⁻¹, and dK gives its dS. The dβ and dS of the blocks add up, so any worker can compute
them. One last step adds the way through M and through the targets S:

    dS += L⁻ᵀ dβ + (dG + dGᵀ + 2 diag(d|s|²)) S,

where dG and d|s|² are the gradients with respect to the inner products S Sᵀ and to their diagonal. They follow from
dM = −L⁻ᵀ (dβ βᵀ) L⁻¹.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from infrec.kernels.inner_products import dense_inner_products, dense_on_device
from infrec.kernels.multinomial import marks, multinomial_sums
from infrec.kernels.ntk import NTK
from infrec.kernels.sparse import product, rows_of_entries, with_empty_rows

_matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

_SHAPE_STEP = 128
"""Blocks are padded to multiples of this many users, because XLA compiles once for each shape."""
_CACHED = 1 << 21
"""The number of entries of a block of P on a CPU: 8 MB stay in its cache."""
_ON_DEVICE = 1 << 26
"""The number of entries of a block of P on an accelerator: 256 MB."""


def regularised_kernel(
    ntk: NTK,
    items: int,
    inner: Float[Array, "budget budget"],
    squares: Float[Array, " budget"],
    lam: float | Array,
) -> Float[Array, "budget budget"]:
    """Return M = K_SS + λ tr(K_SS)/m · 1, from S Sᵀ (`inner`) and its diagonal (`squares`), in their dtype.

    The diagonal of K_SS comes from its own formula, `NTK.diagonal`.
    """
    identity = jnp.eye(len(squares), dtype=inner.dtype)
    kernel = jnp.where(identity > 0, ntk.diagonal(squares, items=items), ntk(inner, squares, squares, items=items))
    return kernel + lam * jnp.trace(kernel) / len(kernel) * identity


def mixing(
    ntk: NTK,
    items: int,
    inner: Float[Array, "budget budget"],
    squares: Float[Array, " budget"],
    lam: float | Array,
    d_matrix: Float[Array, "budget budget"],
) -> Float[Array, "budget budget"]:
    """Return dG + dGᵀ + 2 diag(d|s|²), from dM and the arguments of `regularised_kernel`."""
    _, pull_back = jax.vjp(lambda inner, squares: regularised_kernel(ntk, items, inner, squares, lam), inner, squares)
    d_inner, d_squares = pull_back(d_matrix)
    result: Array = d_inner + d_inner.T + 2 * jnp.diag(d_squares)
    return result


class InnerModel(NamedTuple):
    """An ∞-AE trained on a summary, in the features in which its kernel is white.

    Its arrays are JAX's, or NumPy's on a CPU.
    """

    summary: Float[Array | np.ndarray, "budget items"]
    """S."""
    whitening: Float[Array | np.ndarray, "budget budget"]
    """L⁻¹, lower, for Φ = K(x, S) L⁻ᵀ. It and β are not finite where M is not positive definite."""
    coefficients: Float[Array | np.ndarray, "budget items"]
    """β."""

    @classmethod
    def of(cls, ntk: NTK, summary: Float[Array, "budget items"], lam: float | Array) -> InnerModel:
        """Train the model on a summary with λ = `lam`, in JAX."""
        matrix = regularised_kernel(ntk, summary.shape[1], *_inner(summary), lam)
        identity = jnp.eye(len(matrix), dtype=matrix.dtype)
        inverse = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(matrix), identity, lower=True)
        return cls(summary, inverse, _matmul(inverse, summary))

    def dual(self, labels: Float[Array, "budget columns"] | None = None) -> Float[Array, "budget columns"]:
        """Return α = M⁻¹ S = L⁻ᵀ β, or M⁻¹ Y of other labels Y."""
        coefficients = self.coefficients if labels is None else _matmul(self.whitening, labels)
        dual: Array = _matmul(self.whitening.T, coefficients)
        return dual

    def sharper(self, sharpness: float) -> InnerModel:
        """Return the model whose scores are `sharpness` times as great."""
        return self._replace(whitening=np.float32(sharpness) * self.whitening)

    def pull_back(self, ntk: NTK, lam: float | Array, gradients: Gradients) -> Float[Array, "budget items"]:
        """Return dS, the way through the regression included, from the gradients of all users. JAX computes it."""
        summary, inverse, beta = (jnp.asarray(array) for array in self)
        d_summary, d_beta = jnp.asarray(gradients.summary), jnp.asarray(gradients.coefficients)
        d_matrix = -_matmul(inverse.T, _matmul(_matmul(d_beta, beta.T), inverse))
        mixed = mixing(ntk, summary.shape[1], *_inner(summary), lam, d_matrix) + 2 * jnp.diag(gradients.squares)
        result: Array = d_summary + _matmul(inverse.T, d_beta) + _matmul(mixed, summary)
        return result


def _inner(summary: Float[Array, "budget items"]) -> tuple[Float[Array, "budget budget"], Float[Array, " budget"]]:
    """Return S Sᵀ and its diagonal."""
    return _matmul(summary, summary.T), jnp.sum(summary * summary, axis=1)


class Batch(NamedTuple):
    """Real users, to be predicted. All matrices are CSR, users × items.

    Targets and left-out items are binary and disjoint.
    """

    context: sp.csr_array
    """The kernel's input."""
    targets: sp.csr_array
    """The items that the model should predict."""
    left_out: sp.csr_array
    """The items that are not in the softmax."""
    weights: Float[np.ndarray, " users"]
    """The weight of each user in the sum of the losses."""


class Gradients(NamedTuple):
    """The summed loss of some users, and its derivatives with respect to β and, through K(x, S), to S."""

    loss: float
    coefficients: Float[np.ndarray, "budget items"]
    """dβ."""
    summary: Float[np.ndarray, "budget items"]
    """dS through the inner products X Sᵀ. On a CPU, its columns are contiguous."""
    squares: Float[np.ndarray, " budget"]
    """d|s|². The rest of dS through K(x, S) is 2 diag(d|s|²) S."""


class UsersLoss:
    """The multinomial loss of users under a model, on JAX's default device. S, L and β are each held fixed.

    The factors of the three heavy products are rounded to the dtype `factors`. On a CPU, a summary whose columns are
    contiguous is not copied.
    """

    def __init__(self, ntk: NTK, model: InnerModel, *, factors: DTypeLike = jnp.bfloat16) -> None:
        self._ntk, self._factors = ntk, factors
        summary, whitening, coefficients = model
        self._on_host = jax.default_backend() == "cpu"
        self._products: Callable[[sp.csr_array], _OnHost | _OnDevice] = (
            partial(_OnHost, transposed_summary=np.ascontiguousarray(summary.T))
            if self._on_host
            else partial(_OnDevice, summary=jnp.asarray(summary))
        )
        self._squares = np.einsum("ui,ui->u", summary, summary)
        self._whitening = jnp.asarray(whitening)
        self._coefficients, self._dtype = coefficients, summary.dtype

    def gradients(self, batch: Batch) -> Gradients:
        """Return the summed loss of the users of `batch`, and its derivatives. These have the dtype of the model."""
        users, items = len(batch.weights), self._coefficients.shape[1]
        context, targets, left_out = (with_empty_rows(matrix, _SHAPE_STEP) for matrix in batch[:3])
        counts = np.diff(targets.indptr).astype(self._dtype)
        weights = np.pad(batch.weights, (0, -users % _SHAPE_STEP))
        norms = np.bincount(rows_of_entries(context), context.data**2, context.shape[0]).astype(self._dtype)
        products = self._products(context)
        entries = _CACHED if self._on_host else _ON_DEVICE
        height = max(1, entries // (items * _SHAPE_STEP)) * _SHAPE_STEP
        sums, d_squares = multinomial_sums(self._coefficients, self._factors), np.zeros_like(self._squares)
        for start in range(0, users, height):
            rows = slice(start, start + height)
            arguments = self._ntk, items, products.inner(rows), norms[rows], self._squares, self._whitening
            marked = marks(targets[rows], left_out[rows])
            d_phi = sums.add(_features(*arguments), marked, counts[rows], weights[rows])
            d_inner, d_squares_of_block = _features_pull_back(*arguments, d_phi)
            products.pull_back(rows, d_inner)
            d_squares += np.asarray(d_squares_of_block)
        return Gradients(sums.loss(), sums.d_beta(), products.d_summary(), d_squares)


class _OnHost:
    """X Sᵀ of users X, and the way back to S. SciPy computes it sparse, for all users at once."""

    def __init__(self, context: sp.csr_array, transposed_summary: Float[np.ndarray, "items budget"]) -> None:
        self._context = context
        self._inner = product(context, transposed_summary)

    def inner(self, rows: slice) -> Float[np.ndarray, "users budget"]:
        return self._inner[rows]

    def pull_back(self, rows: slice, d_inner: Float[Array, "users budget"]) -> None:
        self._inner[rows] = d_inner  # the products of these users are not needed any more

    def d_summary(self) -> Float[np.ndarray, "budget items"]:
        return product(self._context.T.tocsr(), self._inner).T


class _OnDevice:
    """X Sᵀ of users X, and the way back to S. An accelerator computes it dense, for some users at a time."""

    def __init__(self, context: sp.csr_array, summary: Float[Array, "budget items"]) -> None:
        self._context, self._summary = context, summary
        self._d_summary = jnp.zeros_like(summary)

    def inner(self, rows: slice) -> Float[Array, "users budget"]:
        self._dense = dense_on_device(self._context[rows])
        inner: Array = dense_inner_products(self._dense, self._summary)
        return inner

    def pull_back(self, rows: slice, d_inner: Float[Array, "users budget"]) -> None:
        del rows  # these are the rows of the last `inner`
        self._d_summary = _add_transposed_product(self._d_summary, d_inner, self._dense)

    def d_summary(self) -> Float[np.ndarray, "budget items"]:
        return np.asarray(self._d_summary)


@partial(jax.jit, donate_argnums=0)
def _add_transposed_product(total: Array, left: Array, right: Array) -> Float[Array, "budget items"]:
    result: Array = total + _matmul(left.T, right.astype(left.dtype))
    return result


@partial(jax.jit, static_argnums=(0, 1))
def _features(
    ntk: NTK, items: int, inner: Array, norms: Array, squares: Array, whitening: Array
) -> Float[Array, "users budget"]:
    """Return Φ."""
    features: Array = _matmul(ntk(inner, norms, squares, items=items), whitening.T)
    return features


@partial(jax.jit, static_argnums=(0, 1))
def _features_pull_back(
    ntk: NTK, items: int, inner: Array, norms: Array, squares: Array, whitening: Array, cotangent: Array
) -> tuple[Float[Array, "users budget"], Float[Array, " budget"]]:
    """Return the gradients of the inner products X Sᵀ and d|s|², from dΦ (`cotangent`), with L held fixed."""
    _, pull_back = jax.vjp(
        lambda inner, squares: _features(ntk, items, inner, norms, squares, whitening), inner, squares
    )
    d_inner, d_squares = pull_back(cotangent)
    return d_inner, d_squares
