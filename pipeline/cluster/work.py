"""The amount of a work, and the time that it takes. It decides where work is done, and never what comes out."""

from __future__ import annotations

from dataclasses import dataclass

NOMINAL_RATE = 50e9
"""The rate of a usual CPU in a float32 matrix product, in floating-point operations a second."""

# These were measured on ML-1M and on synthetic logs of 30,000 × 40,000 and 480,000 × 17,770 (benchmarks/README.md)
_DENSE_SHARE = 0.75
"""The rate of the solvers, whose products are dense, relative to that of a GEMM."""
_SPARSE_SHARE = 1 / 13
"""The rate of a sparse × dense product, relative to that of a GEMM."""
_ROWS_A_SECOND = 4e6
"""The interactions that a CPU reads in a second."""


@dataclass(frozen=True)
class Work:
    """An amount of work."""

    dense: float = 0.0
    """The floating-point operations of dense products."""
    sparse: float = 0.0
    """The floating-point operations of products with a sparse matrix."""
    rows: float = 0.0
    """The interactions that are read."""

    @property
    def operations(self) -> float:
        """The number of floating-point operations."""
        return self.dense + self.sparse

    def seconds(self, rate: float = NOMINAL_RATE) -> float:
        """Return the time on one CPU whose matrix products make `rate` operations a second."""
        products = self.dense / _DENSE_SHARE + self.sparse / _SPARSE_SHARE
        return products / rate + self.rows / _ROWS_A_SECOND

    def __add__(self, other: Work) -> Work:
        return Work(self.dense + other.dense, self.sparse + other.sparse, self.rows + other.rows)
