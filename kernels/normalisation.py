"""Degree normalisation of the kernel's input: it scales users down by their activity and items by their popularity.

The paper does not normalise. The target of the regression stays the plain binary matrix; only the kernel sees
normalised rows.

Source: exponents of both degrees, for linear autoencoders, in DAN (Park et al., "Why is Normalization Necessary for
Linear Recommenders?", SIGIR 2025, arXiv 2504.05805); with both at ½, GF-CF (Shen et al., "How Powerful is Graph
Convolution for Recommendation?", CIKM 2021). The rescaling to the plain norm is this project's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Exponents:
    """The strength of the normalisation: (0, 0) is the paper's kernel, (½, ½) the symmetric Laplacian's.

    Raises ValueError for an exponent outside [0, 1].
    """

    user: float = 0.0
    """p, the exponent of a user's activity."""
    item: float = 0.0
    """q, the exponent of an item's popularity."""

    def __post_init__(self) -> None:
        if not (0 <= self.user <= 1 and 0 <= self.item <= 1):
            raise ValueError(f"exponents must lie in [0, 1], they are {self.user} and {self.item}")

    @property
    def is_identity(self) -> bool:
        """Whether the normalisation leaves every row as it is."""
        return self.user == 0 and self.item == 0

    def __str__(self) -> str:
        return f"p={self.user:g} q={self.item:g}"


@dataclass(frozen=True)
class DegreeNormalisation:
    """The map x ↦ s · d_x^(−p) · x · D^(−q) of rows x over the items.

    d_x is the sum of the row, and D holds the column sums of the items in the training matrix. A sum below 1 counts
    as 1. The scale s makes the mean squared row norm of the normalised training matrix equal to that of the plain one.
    So a ridge and the kernel's b_std mean the same for all exponents.
    """

    exponents: Exponents
    item_weights: Float[np.ndarray, " items"]
    """s · D^(−q), float64."""

    @classmethod
    def of(cls, train: sp.csr_array, exponents: Exponents) -> DegreeNormalisation:
        """Return the normalisation that the training matrix `train` (binary CSR, users × items) defines."""
        degrees = np.bincount(train.indices, minlength=train.shape[1])
        unscaled = cls.of_degrees(degrees, exponents)
        return cls.of_degrees(degrees, exponents, scale=unscaled.scale(train.nnz, unscaled.squares(train)))

    @classmethod
    def of_degrees(
        cls, degrees: Int[np.ndarray, " items"], exponents: Exponents, *, scale: float = 1.0
    ) -> DegreeNormalisation:
        """Return the normalisation with s = `scale`, from the column sums of a training matrix.

        The matrix itself need not be in memory.
        """
        return cls(exponents, scale * np.maximum(degrees, 1).astype(np.float64) ** -exponents.item)

    def squares(self, rows: sp.csr_array) -> float:
        """Return the sum of the squared norms of the normalised rows. These sums add up over blocks of users."""
        return float(np.sum(self(rows).data.astype(np.float64) ** 2))

    def scale(self, interactions: int, squares: float) -> float:
        """Return s for a training matrix: from its number of interactions, and its `squares` under the scale 1."""
        return 1.0 if self.exponents.is_identity or not squares else float(np.sqrt(interactions / squares))

    def __call__(self, rows: sp.csr_array) -> sp.csr_array:
        """Return the normalised rows, with the same dtype and sparsity.

        Where both exponents are 0, the result is `rows` itself.
        """
        if self.exponents.is_identity:
            return rows
        sums = np.maximum(np.asarray(rows.sum(axis=1), dtype=np.float64).ravel(), 1.0)
        weights = np.repeat(sums**-self.exponents.user, np.diff(rows.indptr)) * self.item_weights[rows.indices]
        return sp.csr_array(((rows.data * weights).astype(rows.dtype), rows.indices, rows.indptr), shape=rows.shape)
