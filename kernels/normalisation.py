"""Degree normalisation of the kernel's input: users and items are scaled down by their activity and popularity.

Beyond the paper: the target of the regression stays the plain binary matrix, only the kernel sees normalised rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Exponents:
    """How strongly the degrees are normalised away: (0, 0) is the paper's kernel, (½, ½) the symmetric Laplacian's."""

    user: float = 0.0
    item: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.user <= 1 and 0 <= self.item <= 1):
            raise ValueError(f"exponents must lie in [0, 1], they are {self.user} and {self.item}")

    @property
    def is_identity(self) -> bool:
        return self.user == 0 and self.item == 0

    def __str__(self) -> str:
        return f"p={self.user:g} q={self.item:g}"


@dataclass(frozen=True)
class DegreeNormalisation:
    """x ↦ s · d_x^(−p) · x · D^(−q), with d_x the row's own sum and D the items' column sums in the train matrix.

    The scale s makes the mean squared row norm of the normalised train matrix that of the plain one, so that a ridge
    and the kernel's b_std mean the same for all exponents.
    """

    exponents: Exponents
    item_weights: Float[np.ndarray, " items"]
    """s · D^(−q), float64."""

    @classmethod
    def of(cls, train: sp.csr_array, exponents: Exponents) -> DegreeNormalisation:
        """The normalisation that `train` (binary, users × items) defines."""
        degrees = np.bincount(train.indices, minlength=train.shape[1])
        unscaled = cls.of_degrees(degrees, exponents)
        return cls.of_degrees(degrees, exponents, scale=unscaled.scale(train.nnz, unscaled.squares(train)))

    @classmethod
    def of_degrees(
        cls, degrees: Int[np.ndarray, " items"], exponents: Exponents, *, scale: float = 1.0
    ) -> DegreeNormalisation:
        """From the column sums of a train matrix that need not be in memory, with `scale` for s."""
        return cls(exponents, scale * np.maximum(degrees, 1).astype(np.float64) ** -exponents.item)

    def squares(self, rows: sp.csr_array) -> float:
        """The sum of the normalised rows' squared norms: over blocks of users these add up."""
        return float(np.sum(self(rows).data.astype(np.float64) ** 2))

    def scale(self, interactions: int, squares: float) -> float:
        """s, for a train matrix of so many interactions whose `squares` without a scale are these."""
        return 1.0 if self.exponents.is_identity or not squares else float(np.sqrt(interactions / squares))

    def __call__(self, rows: sp.csr_array) -> sp.csr_array:
        """The normalised rows, of the same dtype and sparsity. Exactly `rows` where both exponents are 0."""
        if self.exponents.is_identity:
            return rows
        sums = np.maximum(np.asarray(rows.sum(axis=1), dtype=np.float64).ravel(), 1.0)
        weights = np.repeat(sums**-self.exponents.user, np.diff(rows.indptr)) * self.item_weights[rows.indices]
        return sp.csr_array(((rows.data * weights).astype(rows.dtype), rows.indices, rows.indptr), shape=rows.shape)
