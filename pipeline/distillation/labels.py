"""The labels of a summary, solved in closed form: what each synthetic user predicts for all users to be served best.

The paper's ∞-AE of a summary S predicts S from S. Its labels need not be S. With M = K_SS + λ tr(K_SS)/m · 1 and the
kernel rows k(x) = K(x, S), the scores of any labels Y are k(x) M⁻¹ Y. Let x̃_u be user u without some of its items
(`Denoising`), and w_u its weight. The labels that predict whole users from these are

    Y = M α,    α = (A + c M)⁻¹ R,    A = Σ_u w_u k(x̃_u)ᵀ k(x̃_u),    R = Σ_u w_u k(x̃_u)ᵀ x_u.

These are Nyström's normal equations (`kernels.nystrom`), with M in place of K_ZZ. One pass over the users serves every
c. Validation chooses c = c' tr(M⁻¹A)/m from a grid of c', which grows for as long as the best c' lies at its edge.

The labels of all items are many numbers. They are kept as factors F G of a low rank, in levels (`kernels.levels`).
Validation chooses the lowest rank that judges as well as the best labels, but for a small loss. Levels only add noise,
and what they cost is too little for validation to see it among its own noise. So the levels are the coarsest with which
the users of validation are still recommended nearly the same items.

Source: the label solve of KIP (Nguyen, Chen & Lee, ICLR 2021, arXiv 2011.00050), with the denoising of EDLAE (Steck,
NeurIPS 2020). On three logs these labels are better than S itself (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Float64, Int, Int8

from infrec.kernels.inner_regression import solve_summary
from infrec.kernels.kernel_matrix import KernelRows, kernel_diagonal_block
from infrec.kernels.levels import Levels
from infrec.kernels.nystrom import LabelFactors, NystromSystem
from infrec.pipeline.cluster import Report, silent
from infrec.pipeline.distillation.config import DistillConfig
from infrec.pipeline.distillation.denoising import Denoising
from infrec.pipeline.distillation.part_worker import Coefficients
from infrec.pipeline.distillation.users import Users
from infrec.pipeline.storage import Diverged

_EXPONENTS = range(-4, 1)
"""The first grid of c': powers of ten."""
_ALL_EXPONENTS = range(-12, 4)
"""The greatest grid of c'. Beyond its ends c' changes nothing, or leaves nothing."""

_RANK_LOSS = 0.00125
"""The part of the validation metric that labels may lose when their rank is lowered."""

_STEPS = (3.0, 2.0, 1.5, 1.0, 0.75, 0.5, 0.35, 0.25)
"""The steps of G that are tried, the coarsest first, in units of the root mean square of G."""

_COMPARED = 10
"""The number of recommended items that are compared to tell what levels change. In a small catalogue it is a quarter of
the items: where all items are recommended, levels change nothing."""

_JUDGED_ENTRIES = 1 << 27
"""The entries of right factors that are judged at once: 512 MB."""

_FACTOR_STEP = 0.1
"""The step of F, in units of the root mean square of each column."""


def _mean_squares(matrix: Float32[np.ndarray, "rows columns"]) -> Float64[np.ndarray, " columns"]:
    """Return the mean square of each column."""
    squares: np.ndarray = np.einsum("ij,ij->j", matrix, matrix, dtype=np.float64) / len(matrix)
    return squares


class RoundedLabels(NamedTuple):
    """Labels F G in levels."""

    factors: Levels
    """F: budget × rank. It includes the step of G."""
    labels: Int8[np.ndarray, "rank items"]
    """G."""

    @classmethod
    def of(cls, exact: LabelFactors, step: float) -> RoundedLabels:
        """Round both factors. The levels of G have this step, in units of its root mean square."""
        right = Levels.of(exact.right.T, step * float(np.sqrt(_mean_squares(exact.right).mean())))
        left = exact.left * right.steps
        return cls(Levels.of(left, _FACTOR_STEP * np.sqrt(_mean_squares(left))), right.levels.T)

    @property
    def as_floats(self) -> LabelFactors:
        """F G as float32."""
        return LabelFactors(self.factors.matrix, self.labels.astype(np.float32))


@dataclass(frozen=True)
class SolvedLabels:
    """The labels that validation chose."""

    labels: RoundedLabels
    ridge: float
    """c'."""
    metrics: Mapping[str, float]
    """Their metrics on validation."""


@dataclass(frozen=True)
class LabelSystem:
    """The regression of all users on a summary S, from which its labels are solved for any c'."""

    users: Users
    config: DistillConfig
    summary: Float32[np.ndarray, "budget weighted"]
    """S."""
    lam: float
    matrix: Float64[np.ndarray, "budget budget"]
    """M."""
    system: NystromSystem

    @classmethod
    def of(
        cls,
        users: Users,
        config: DistillConfig,
        summary: Float32[np.ndarray, "budget weighted"],
        lam: float,
        *,
        mean_size: float,
        draws: int,
        items: int | None = None,
        report: Report = silent,
    ) -> LabelSystem:
        """Go through all `users`, each `draws` times. `mean_size` is their mean number of interactions.

        The labels are those of all `items`. None means of the weighted items, which suffices to compare summaries.
        """
        denoising = Denoising(
            drop=config.label_drop,
            draws=draws,
            user_weight=config.label_user_weight,
            mean_size=max(mean_size, 1.0),
            seed=config.seed,
        )
        matrix = kernel_diagonal_block(config.ntk, KernelRows.of(sp.csr_array(summary))).astype(np.float64)
        matrix[np.diag_indices_from(matrix)] += lam * np.trace(matrix) / len(matrix)
        system = NystromSystem.of(matrix, users.normal_equations(config.ntk, summary, denoising, items, report))
        return cls(users, config, summary, lam, matrix, system)

    def factors(self, ridge: float, rank: int) -> LabelFactors:
        """Return the labels of this rank for c' = `ridge`."""
        return self.system.labels(self.matrix, ridge * self.system.mean, rank)

    def judged(self, *labels: LabelFactors) -> list[dict[str, float] | None]:
        """Return the validation metrics of some labels, or None for those that are not finite."""
        models = [self._model(factors) for factors in labels]
        finite = [model for model in models if np.isfinite(model.dual).all()]
        metrics = iter(self.users.judge(self.config.ntk, self.summary, finite) if finite else [])
        return [next(metrics) if np.isfinite(model.dual).all() else None for model in models]

    def recommended(self, labels: LabelFactors) -> Int[np.ndarray, "users k"]:
        """Return the first items for the users of validation by labels of all items."""
        compared = max(1, min(_COMPARED, labels.right.shape[1] // 4))
        return self.users.recommended(self.config.ntk, self.summary, self._model(labels), compared)

    def _model(self, labels: LabelFactors) -> Coefficients:
        return Coefficients(solve_summary(self.config.ntk, self.summary, self.lam, labels.left), labels.right)

    def best_exponent(self, near: int | None = None) -> tuple[int, dict[str, float]]:
        """Return the best exponent of c' and its metrics, with labels of the greatest rank: see `best_exponent`."""

        rank, items = self.config.label_rank, self.system.targets.shape[1]
        at_once = max(1, _JUDGED_ENTRIES // (rank * items))

        def judged(exponents: Sequence[int]) -> list[dict[str, float] | None]:
            batches = [exponents[start : start + at_once] for start in range(0, len(exponents), at_once)]
            return [
                metrics
                for batch in batches
                for metrics in self.judged(*(self.factors(10.0**exponent, rank) for exponent in batch))
            ]

        return best_exponent(judged, self.config.select, near)

    def solve(self, near: int | None = None, report: Report = silent) -> SolvedLabels:
        """Return labels of all items: those of the best c', of a low rank, in coarse levels.

        How they are chosen stands at the top of this module. Raises `Diverged` if no labels are finite.
        """
        select = self.config.select
        report("Labels", 0, 3)
        exponent, metrics = self.best_exponent(near)
        ridge = 10.0**exponent
        report("Labels", 1, 3)
        best, exact = metrics[select], self.factors(ridge, self.config.label_rank)
        while (rank := len(exact.right) * 2 // 3) > 0:
            lower = self.factors(ridge, rank)
            (found,) = self.judged(lower)
            if not found or found[select] < (1 - _RANK_LOSS) * best:
                break
            exact, best = lower, max(best, found[select])
        report("Labels", 2, 3)
        recommended = self.recommended(exact)
        for step in _STEPS:
            labels = RoundedLabels.of(exact, step)
            if _agreement(self.recommended(labels.as_floats), recommended) >= self.config.label_agreement:
                break
        (found,) = self.judged(labels.as_floats)
        if not found:
            raise _diverged()
        report("Labels", 3, 3)
        return SolvedLabels(labels, ridge, found)


def _agreement(lists: Int[np.ndarray, "users k"], others: Int[np.ndarray, "users k"]) -> float:
    """Return the part of the items in `lists` that the same user has in `others`."""
    return float((lists[:, :, None] == others[:, None, :]).any(axis=2).mean())


def _diverged() -> Diverged:
    return Diverged("No labels are finite: give a larger λ.", "lambdas")


def best_exponent(
    judged: Callable[[Sequence[int]], Sequence[dict[str, float] | None]], select: str, near: int | None = None
) -> tuple[int, dict[str, float]]:
    """Return the best exponent of a grid that goes on beyond an edge for as long as the best lies there.

    `judged` returns the metrics of some exponents, or None where there are none. `near` is an exponent that was good
    before: the first grid is then this one and its neighbours. Raises `Diverged` if there are no metrics anywhere on
    the first grid.
    """
    tried: dict[int, dict[str, float]] = {}
    exponents: Sequence[int] = _EXPONENTS if near is None else range(near - 1, near + 2)
    least, greatest = min(exponents), max(exponents)
    while exponents:
        tried |= {one: found for one, found in zip(exponents, judged(exponents), strict=True) if found}
        if not tried:
            raise _diverged()
        best = max(tried, key=lambda one: tried[one][select])
        beyond = best + (best == greatest) - (best == least)
        exponents = [beyond] if beyond != best and beyond in _ALL_EXPONENTS else []
        least, greatest = min(least, beyond), max(greatest, beyond)
    return best, tried[best]
