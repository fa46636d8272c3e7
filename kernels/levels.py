"""Matrices in one byte an entry: the entry (i, j) is a whole level, times the step of its column.

Where the entries of a column matter ‖·‖² times as much as those of another, its step is ‖·‖ times smaller. This takes
the fewest bits at a given error (reverse water-filling: Cover and Thomas, Elements of Information Theory, §10.3).
Columns that matter little are nearly all zeros, which compress to nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int8

_GREATEST = 127
"""The greatest level that a signed byte holds."""
_STRIP = 4096
"""The number of rows that are rounded at once, so that their temporaries are small."""


class Levels(NamedTuple):
    """A matrix of whole levels, and the step of each column."""

    levels: Int8[np.ndarray, "rows columns"]
    steps: Float32[np.ndarray, " columns"]

    @classmethod
    def of(cls, matrix: Float[np.ndarray, "rows columns"], steps: float | Float[np.ndarray, " columns"]) -> Levels:
        """Round `matrix` to multiples of `steps`. A step for which a byte is not enough becomes as large as it must."""
        least = np.maximum(matrix.max(axis=0, initial=0), -matrix.min(axis=0, initial=0)) / _GREATEST
        rounded = np.maximum(steps, least).astype(np.float32)
        rounded = np.where(rounded > 0, rounded, np.float32(1))
        levels = np.empty(matrix.shape, np.int8)
        for start in range(0, len(matrix), _STRIP):
            rows = slice(start, start + _STRIP)
            levels[rows] = np.clip(np.rint(matrix[rows] / rounded), -_GREATEST, _GREATEST)
        return cls(levels, rounded)

    @property
    def matrix(self) -> Float32[np.ndarray, "rows columns"]:
        """Return the rounded matrix."""
        product: np.ndarray = self.levels * self.steps
        return product


class RoundedRows(NamedTuple):
    """Rows of weights that are not negative, as their mean and levels of what they differ from it."""

    mean: Float32[np.ndarray, " items"]
    levels: Int8[np.ndarray, "rows items"]
    steps: Float32[np.ndarray, " items"]

    @classmethod
    def of(cls, rows: Float32[np.ndarray, "rows items"], counts: Int[np.ndarray, " items"], step: float) -> RoundedRows:
        """Round the rows S for inner products with users of whom n_i = `counts` have item i.

        Rounding adds Σ_{i ∈ x} δ_i to the inner product of S with a user x. Its square, summed over the users, is least
        for the number of bits where the step of item i is proportional to n_i^−½. `step` is that of an item which all
        others are like, in units of the root mean square of (S − mean) n^½.
        """
        mean = rows.mean(axis=0, dtype=np.float64)
        deviations, importance = rows - mean, np.sqrt(counts + 0.5)
        size = np.sqrt(np.mean(np.square(deviations * importance)))
        return cls(mean.astype(np.float32), *Levels.of(deviations, step * size / importance))

    @property
    def matrix(self) -> Float32[np.ndarray, "rows items"]:
        """Return the rounded rows. None of their entries is below 0."""
        rows: np.ndarray = np.maximum(self.mean + Levels(self.levels, self.steps).matrix, np.float32(0))
        return rows
