"""The inner problem of Distill-CF, step by step: a summary is drawn from its logits and solved, and the way back.

With S drawn by `kernels.sampler` and M = K_SS + c·1, the scores of the loss are made from κα = κM⁻¹S. From dS and d(κα)
the way back is

    Y = M⁻¹ d(κα),   dM = −Y (κα)ᵀ,   dS += κY + (dG + dGᵀ + 2 diag(d|s|²)) S,

where dG and d|s|² are what dM is to the inner products G = S Sᵀ and to their diagonal (through the kernel, in JAX: of
m × m it has little to do), and then through the sampler. On a CPU the products are NumPy's, on all cores; on an
accelerator all of it is one compiled function of the formulas in `kernels.distillation`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from kernels.distillation import kernel_of_products, summary_dual, with_ridge
from kernels.ntk import NTK
from kernels.sampler import Sampler, Union, fill_with_noise, over_greatest
from kernels.tiles import Each, NotPositiveDefinite, inverse_factor, on_all_cores, one_blas_thread

_PIECES = 4
"""Into which a matrix is cut for the cores: the bytes of a result depend on it."""

_UNBOUNDED = np.errstate(over="ignore", invalid="ignore")
"""Logits of a run that diverges are any numbers: whoever runs it looks at what comes out. Of each thread by itself."""

Matrix = Float32[np.ndarray, "budget items"]


class Sampled(NamedTuple):
    """A summary, drawn and solved, and the way back to the logits."""

    summary: Matrix
    """S."""
    dual: Matrix
    """κα, as the loss sees it; not finite where M is not definite."""
    pull_back: Callable[[Matrix, Matrix], Matrix]
    """From dS and d(κα) to dL."""


@dataclass(frozen=True, kw_only=True)
class InnerStep:
    """How a summary is drawn and solved. Everything is a pure function of the logits, λ and the number of the step."""

    sampler: Sampler
    ntk: NTK
    sharpness: float
    """κ."""
    seed: int

    def sampled(self, logits: Matrix, lam: float, step: int) -> Sampled:
        return (self._on_cpu if jax.default_backend() == "cpu" else self._on_accelerator)(logits, lam, step)

    def summary(self, logits: Matrix, step: int) -> Matrix:
        """S alone."""
        if jax.default_backend() != "cpu":
            return np.asarray(self._sample(logits, self._key(step)))
        with on_all_cores() as each:
            return _cut_off(self._drawn(logits, step, each))

    def _drawn(self, logits: Matrix, step: int, each: Each) -> list[Union]:
        groups, temperature = self.sampler.group_rows(len(logits)), self.sampler.temperature
        noise = np.empty((len(groups), self.sampler.draws, logits.shape[1]), np.float32)

        @_UNBOUNDED
        def draw(group: int) -> Union:
            fill_with_noise(noise[group], temperature, np.random.default_rng([self.seed, step, group]))
            return Union.of(over_greatest(logits[groups[group]], temperature), noise[group])

        return each(draw, range(len(groups)))

    def _on_cpu(self, logits: Matrix, lam: float, step: int) -> Sampled:
        with on_all_cores() as each:
            drawn = self._drawn(logits, step, each)
            summary = _cut_off(drawn)
            regression = _Regression.of(self.ntk, summary, lam, each)
            dual = self.sharpness * regression.solve(summary, each)
        groups = self.sampler.group_rows(len(summary))

        def pull_back(d_summary: Matrix, d_dual: Matrix) -> Matrix:
            d_logits = np.empty_like(summary)

            @_UNBOUNDED
            def through_sampler(group: int) -> None:
                rows = groups[group]
                cotangent = d_summary[rows] + self.sharpness * y[rows]
                cotangent += mixing[rows] @ summary
                cotangent *= summary[rows] < 1.0
                d_logits[rows] = drawn[group].pull_back(cotangent, self.sampler.temperature)

            with on_all_cores() as each:
                y = regression.solve(d_dual, each)
                mixing = regression.pull_back(-_product(y, dual.T, each))
                each(through_sampler, range(len(groups)))
            return d_logits

        return Sampled(summary, dual, pull_back)

    def _on_accelerator(self, logits: Matrix, lam: float, step: int) -> Sampled:
        with one_blas_thread:  # where the driver has a CPU alone, JAX's Cholesky runs on it
            (summary, dual), back = self._differentiable(logits, jnp.float32(lam), self._key(step))

            def pull_back(*cotangents: Matrix) -> Matrix:
                return np.asarray(_pulled_back(back, cotangents))

            return Sampled(np.asarray(summary), np.asarray(dual), pull_back)

    def _key(self, step: int) -> Array:
        return jax.random.fold_in(jax.random.key(self.seed), step)

    @cached_property
    def _sample(self) -> Any:
        return jax.jit(self.sampler.__call__)

    @cached_property
    def _differentiable(self) -> Any:
        def sample_and_solve(logits: Array, lam: Array, key: Array) -> tuple[Array, Array]:
            summary = self.sampler(logits, key)
            return summary, self.sharpness * summary_dual(self.ntk, summary, lam)

        return jax.jit(lambda logits, lam, key: jax.vjp(partial(sample_and_solve, lam=lam, key=key), logits))


def _cut_off(drawn: list[Union]) -> Matrix:
    """S of all groups."""
    summary: np.ndarray = np.vstack([part.union for part in drawn])
    np.minimum(summary, 1.0, out=summary)
    return summary


_pulled_back = jax.jit(lambda pull_back, cotangents: pull_back(cotangents)[0])


def solve_summary(ntk: NTK, summary: Matrix, lam: float) -> Matrix:
    """α of a summary; not finite where M is not definite. Its bytes do not depend on the number of cores."""
    if jax.default_backend() != "cpu":
        return np.asarray(_dual(ntk, summary, lam))
    with on_all_cores() as each:
        return _Regression.of(ntk, summary, lam, each).solve(summary, each)


_dual = jax.jit(summary_dual, static_argnames="ntk")


@dataclass(frozen=True)
class _Regression:
    """M of a summary, factorised."""

    inverse_factor: Float32[np.ndarray, "budget budget"] | None
    """Of Cholesky, lower; None where there is none."""
    pull_back: Callable[[Float32[np.ndarray, "budget budget"]], Float32[np.ndarray, "budget budget"]]
    """From dM to dG + dGᵀ + 2 diag(d|s|²)."""

    @classmethod
    def of(cls, ntk: NTK, summary: Matrix, lam: float, each: Each) -> _Regression:
        items = summary.shape[1]
        inner = sum(each(lambda columns: summary[:, columns] @ summary[:, columns].T, _pieces(items)))
        arguments = inner, np.einsum("ui,ui->u", summary, summary), np.float32(lam)
        matrix = np.asarray(_regularised_kernel(ntk, items, *arguments))

        def pull_back(d_matrix: np.ndarray) -> np.ndarray:
            return np.asarray(_mixing(ntk, items, *arguments, d_matrix))

        try:
            return cls(inverse_factor(matrix, slice(0, len(matrix))), pull_back)
        except NotPositiveDefinite:
            return cls(None, pull_back)

    def solve(self, right: Matrix, each: Each) -> Matrix:
        """M⁻¹ right = L⁻ᵀ (L⁻¹ right), by the pieces of L⁻¹ that are not 0: faster than LAPACK's triangular solves."""
        inverse = self.inverse_factor
        if inverse is None:
            return np.full_like(right, np.nan)
        half, solution = np.empty(right.shape, right.dtype), np.empty(right.shape, right.dtype)
        pieces = _pieces(len(right))
        # The longest first, so that no core waits for the last one
        each(lambda i: np.matmul(inverse[i, : i.stop], right[: i.stop], out=half[i]), pieces[::-1])
        each(lambda i: np.matmul(inverse[i.start :, i].T, half[i.start :], out=solution[i]), pieces)
        return solution


def _regularised(
    ntk: NTK, items: int, inner: Float[Array, "budget budget"], squares: Float[Array, " budget"], lam: float | Array
) -> Float[Array, "budget budget"]:
    return with_ridge(kernel_of_products(ntk, inner, squares, items=items), lam)


_regularised_kernel = jax.jit(_regularised, static_argnums=(0, 1))


@partial(jax.jit, static_argnums=(0, 1))
def _mixing(
    ntk: NTK, items: int, inner: Array, squares: Array, lam: Array, d_matrix: Array
) -> Float[Array, "budget budget"]:
    _, pull_back = jax.vjp(lambda inner, squares: _regularised(ntk, items, inner, squares, lam), inner, squares)
    d_inner, d_squares = pull_back(d_matrix)
    mixing: Array = d_inner + d_inner.T + 2 * jnp.diag(d_squares)
    return mixing


def _product(
    left: Float32[np.ndarray, "rows inner"], right: Float32[np.ndarray, "inner columns"], each: Each
) -> Float32[np.ndarray, "rows columns"]:
    """left · right, by some rows at a time."""
    result = np.empty((left.shape[0], right.shape[1]), left.dtype)
    each(lambda rows: np.matmul(left[rows], right, out=result[rows]), _pieces(len(left)))
    return result


def _pieces(count: int) -> list[slice]:
    height = -(-count // _PIECES)
    return [slice(start, min(start + height, count)) for start in range(0, count, height)]
