"""The inner problem of Distill-CF: draw a summary from its logits, solve it, and pull gradients back to the logits.

`kernels.sampler` draws the summary S. The formulas in `kernels.outer_loss` train its ∞-AE and pull gradients back
through it. The loss is a function of κP: the scores P, made κ times as great. On a CPU, NumPy computes the products on
all cores. On an accelerator, everything is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from infrec.kernels.ntk import NTK
from infrec.kernels.outer_loss import Gradients, InnerModel, mixing, regularised_kernel
from infrec.kernels.sampler import Sampler, Union, fill_with_noise, over_greatest
from infrec.kernels.tiles import Each, NotPositiveDefinite, inverse_factor, on_all_cores, one_blas_thread

_PIECES = 4
"""The number of pieces into which a matrix is cut for the cores. The bytes of a result depend on it."""

_UNBOUNDED = np.errstate(over="ignore", invalid="ignore")
"""It silences overflow and invalid values. In a run that diverges, the logits can be any numbers, and the caller checks
the result. NumPy keeps this setting for each thread separately, so each function that runs on a thread sets it."""

Matrix = Float32[np.ndarray, "budget items"]


class Sampled(NamedTuple):
    """A summary that was drawn and solved, and the way back to its logits."""

    model: InnerModel
    """The model as the loss sees it, with scores κ times as great. It is not finite where M has no Cholesky factor."""
    pull_back: Callable[[Gradients], Matrix]
    """Maps the gradients of all users to the gradient with respect to the logits."""


@dataclass(frozen=True, kw_only=True)
class InnerStep:
    """How a summary is drawn and solved.

    All results are pure functions of the logits (budget × items, float32), λ and the number of the step.
    """

    sampler: Sampler
    ntk: NTK
    sharpness: float
    """κ: the loss sees the scores κ times as great."""
    seed: int

    def sampled(self, logits: Matrix, lam: float, step: int) -> Sampled:
        """Draw the summary S of this step, and solve it with λ = `lam`."""
        return (self._on_cpu if jax.default_backend() == "cpu" else self._on_accelerator)(logits, lam, step)

    def summary(self, logits: Matrix, step: int) -> Matrix:
        """Draw the summary S of this step, and do not solve it."""
        if jax.default_backend() != "cpu":
            return np.asarray(self._sample(logits, self._key(step)))
        with on_all_cores() as each:
            return _cut_off(self._drawn(logits, step, each))

    def _drawn(self, logits: Matrix, step: int, each: Each) -> list[Union]:
        """Draw the groups of synthetic users, each not yet cut off at 1."""
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
            beta = regression.whiten(summary, each)
        groups = self.sampler.group_rows(len(summary))

        def pull_back(gradients: Gradients) -> Matrix:
            d_logits, d_beta = np.empty_like(summary), gradients.coefficients

            @_UNBOUNDED
            def through_sampler(group: int) -> None:
                rows = groups[group]
                cotangent = mixed[rows] @ summary
                cotangent += gradients.summary[rows]
                cotangent += through_targets[rows]
                cotangent *= summary[rows] < 1.0
                d_logits[rows] = drawn[group].pull_back(cotangent, self.sampler.temperature)

            with on_all_cores() as each:
                through_targets = regression.transposed_whiten(d_beta, each)
                mixed = regression.pull_back(_product(d_beta, beta.T, each))
                mixed += 2 * np.diag(gradients.squares)
                each(through_sampler, range(len(groups)))
            return d_logits

        return Sampled(InnerModel(summary, regression.inverse_factor, beta).sharper(self.sharpness), pull_back)

    def _on_accelerator(self, logits: Matrix, lam: float, step: int) -> Sampled:
        with one_blas_thread:  # if the driver has only a CPU, JAX's Cholesky runs on it
            summary, through_sampler = self._sample_with_way_back(logits, self._key(step))
            model = _trained(self.ntk, summary, lam)

            def pull_back(gradients: Gradients) -> Matrix:
                return np.asarray(_pulled_back(self.ntk, through_sampler, model, lam, gradients))

            on_host = InnerModel(*(np.asarray(array) for array in model))
            return Sampled(on_host.sharper(self.sharpness), pull_back)

    def _key(self, step: int) -> Array:
        return jax.random.fold_in(jax.random.key(self.seed), step)

    @cached_property
    def _sample(self) -> Any:
        return jax.jit(self.sampler.__call__)

    @cached_property
    def _sample_with_way_back(self) -> Any:
        return jax.jit(lambda logits, key: jax.vjp(partial(self.sampler.__call__, key=key), logits))


def _cut_off(drawn: list[Union]) -> Matrix:
    """Return S: all groups together, cut off at 1."""
    summary: np.ndarray = np.vstack([part.union for part in drawn])
    np.minimum(summary, 1.0, out=summary)
    return summary


_trained = jax.jit(InnerModel.of, static_argnums=0)


@partial(jax.jit, static_argnames="ntk")
def _pulled_back(ntk: NTK, through_sampler: Any, model: InnerModel, lam: Array, gradients: Gradients) -> Array:
    d_logits: Array = through_sampler(model.pull_back(ntk, lam, gradients))[0]
    return d_logits


def solve_summary(
    ntk: NTK, summary: Matrix, lam: float, labels: Float32[np.ndarray, "budget columns"] | None = None
) -> Float32[np.ndarray, "budget columns"]:
    """Return α = M⁻¹ Y of a summary S with λ = `lam`, M as in `kernels.outer_loss`.

    Y are the `labels`, by default S itself. α is not finite where M is not positive definite. On a CPU, its bytes do
    not depend on the number of cores.
    """
    labels = summary if labels is None else labels
    if jax.default_backend() != "cpu":
        return np.asarray(_trained(ntk, summary, lam).dual(jnp.asarray(labels)))
    with on_all_cores() as each:
        regression = _Regression.of(ntk, summary, lam, each)
        return regression.transposed_whiten(regression.whiten(labels, each), each)


@dataclass(frozen=True)
class _Regression:
    """The factorised M of a summary."""

    inverse_factor: Float32[np.ndarray, "budget budget"]
    """L⁻¹. It is all NaN where M has no Cholesky factor."""
    pull_back: Callable[[Float32[np.ndarray, "budget budget"]], Float32[np.ndarray, "budget budget"]]
    """Maps dβ βᵀ to dG + dGᵀ + 2 diag(d|s|²)."""

    @classmethod
    def of(cls, ntk: NTK, summary: Matrix, lam: float, each: Each) -> _Regression:
        items = summary.shape[1]
        inner = sum(each(lambda columns: summary[:, columns] @ summary[:, columns].T, _pieces(items)))
        arguments = inner, np.einsum("ui,ui->u", summary, summary), np.float32(lam)
        matrix = np.asarray(_regularised_kernel(ntk, items, *arguments))
        try:
            inverse = inverse_factor(matrix, slice(0, len(matrix)))
        except NotPositiveDefinite:
            inverse = np.full_like(matrix, np.nan)

        def pull_back(outer: np.ndarray) -> np.ndarray:
            return np.array(_mixing(ntk, items, *arguments, -(inverse.T @ outer @ inverse)))

        return cls(inverse, pull_back)

    # Both products use only the pieces of L⁻¹ that are not 0, which is faster than LAPACK's triangular solves. The
    # longest piece comes first, so that no core waits for the last one.

    def whiten(self, right: Matrix, each: Each) -> Matrix:
        """Return L⁻¹ right."""
        inverse, result = self.inverse_factor, np.empty(right.shape, right.dtype)
        each(lambda i: np.matmul(inverse[i, : i.stop], right[: i.stop], out=result[i]), _pieces(len(right))[::-1])
        return result

    def transposed_whiten(self, right: Matrix, each: Each) -> Matrix:
        """Return L⁻ᵀ right."""
        inverse, result = self.inverse_factor, np.empty(right.shape, right.dtype)
        each(lambda i: np.matmul(inverse[i.start :, i].T, right[i.start :], out=result[i]), _pieces(len(right)))
        return result


_regularised_kernel = jax.jit(regularised_kernel, static_argnums=(0, 1))
_mixing = jax.jit(mixing, static_argnums=(0, 1))


def _product(
    left: Float32[np.ndarray, "rows inner"], right: Float32[np.ndarray, "inner columns"], each: Each
) -> Float32[np.ndarray, "rows columns"]:
    """Return left · right. Each call on a core computes some of its rows."""
    result = np.empty((left.shape[0], right.shape[1]), left.dtype)
    each(lambda rows: np.matmul(left[rows], right, out=result[rows]), _pieces(len(left)))
    return result


def _pieces(count: int) -> list[slice]:
    height = -(-count // _PIECES)
    return [slice(start, min(start + height, count)) for start in range(0, count, height)]
