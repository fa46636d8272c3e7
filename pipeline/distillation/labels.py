"""The labels of a summary, solved in closed form: what each synthetic user predicts for all users to be served best.

The paper's ∞-AE of a summary S predicts S from S. Its labels need not be S. With M = K_SS + λ tr(K_SS)/m · 1 and the
kernel rows k(x) = K(x, S), the scores of any labels Y are k(x) M⁻¹ Y. Let x̃_u be user u without some of its items
(`Denoising`), and w_u its weight. The labels that predict whole users from these are

    Y = M α,    α = (A + c M)⁻¹ R,    A = Σ_u w_u k(x̃_u)ᵀ k(x̃_u),    R = Σ_u w_u k(x̃_u)ᵀ x_u.

These are Nyström's normal equations (`kernels.nystrom`), with M in place of K_ZZ. One pass over the users serves every
c. Validation chooses c = c' tr(M⁻¹A)/m from a grid of c', which grows for as long as the best c' lies at its edge.

Source: the label solve of KIP (Nguyen, Chen & Lee, ICLR 2021, arXiv 2011.00050), with the denoising of EDLAE (Steck,
NeurIPS 2020). On three logs these labels are better than S itself (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from infrec.kernels.inner_regression import solve_summary
from infrec.kernels.kernel_matrix import KernelRows, kernel_diagonal_block
from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from infrec.kernels.nystrom import NystromSystem
from infrec.pipeline.cluster import Pool, Report, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation.config import DistillConfig
from infrec.pipeline.distillation.users import Users
from infrec.pipeline.solvers import Denoising, NormalEquationsWorker, sum_normal_equations, train_counts

_EXPONENTS = range(-5, 0)
"""The first grid of c': powers of ten."""
_ALL_EXPONENTS = range(-12, 4)
"""The greatest grid of c'. Beyond its ends c' changes nothing, or leaves nothing."""


@dataclass(frozen=True)
class SolvedLabels:
    """The labels that validation chose."""

    labels: Float32[np.ndarray, "budget items"]
    """Y."""
    ridge: float
    """c'."""
    metrics: Mapping[str, float]
    """Its metrics on validation."""


def solve_labels(
    dataset: Dataset,
    summary: Float32[np.ndarray, "budget items"],
    lam: float,
    config: DistillConfig,
    users: Users,
    pool: Pool,
    *,
    report: Report = silent,
) -> SolvedLabels | None:
    """Return the labels of a summary S with λ = `lam`. `users` judge them. Return None if no c' has finite labels.

    The shares of A and R come from the actors of `pool`. The bytes depend on the dataset, S and the settings alone.
    """
    landmarks = KernelRows.of(sp.csr_array(summary))
    unnormalised = DegreeNormalisation.of_degrees(train_counts(dataset), Exponents())
    denoising = Denoising(
        drop=config.label_drop,
        draws=config.label_draws,
        user_weight=config.label_user_weight,
        mean_size=max(dataset.mean_train_interactions, 1.0),
        seed=config.seed,
    )
    with pool.workers(NormalEquationsWorker, dataset) as workers:
        equations = sum_normal_equations(
            workers, dataset, config.ntk, unnormalised, landmarks, denoising=denoising, report=report
        )
    matrix = kernel_diagonal_block(config.ntk, landmarks).astype(np.float64)
    matrix[np.diag_indices_from(matrix)] += lam * np.trace(matrix) / len(matrix)
    system = NystromSystem.of(matrix, equations)

    def judged(ridge: float) -> SolvedLabels | None:
        labels = system.labels(matrix, ridge * system.mean)
        dual = solve_summary(config.ntk, summary, lam, labels)
        if not np.isfinite(dual).all():
            return None
        (metrics,) = users.judge(config.ntk, summary, [dual])
        return SolvedLabels(labels, ridge, metrics)

    return _best_ridge(judged, config.select, report)


def _best_ridge(judged: Callable[[float], SolvedLabels | None], select: str, report: Report) -> SolvedLabels | None:
    """Judge the grid of c', and go on beyond an edge for as long as the best c' lies there."""
    best: SolvedLabels | None = None
    peak, exponents = 0, list(_EXPONENTS)
    for tried, exponent in enumerate(exponents, start=1):
        found = judged(10.0**exponent)
        if found and (best is None or found.metrics[select] > best.metrics[select]):
            best, peak = found, exponent
        known = {f"best {select}": best.metrics[select]} if best else {}
        report("Ridges of the labels", tried, len(exponents), known)
        if tried == len(exponents) and best:  # the loop goes on with what is appended
            beyond = peak + (peak == max(exponents)) - (peak == min(exponents))
            if beyond != peak and beyond in _ALL_EXPONENTS:
                exponents.append(beyond)
    return best
