"""The one table of tolerances: how far a result in a precision may lie from the truth."""

from __future__ import annotations

import numpy as np

ENTRYWISE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-13}
"""The error of each entry, relative to itself, for formulas without cancellation."""
GRADIENT = {np.dtype(np.float32): 5e-3, np.dtype(np.float64): 1e-6}
"""The error of a gradient, relative to its largest entry, where rounding decides on which side of a kink it is."""
FINITE_DIFFERENCE = 1e-6
"""The error of a gradient against central differences with steps of 1e-5 in float64, relative to its largest entry."""
ROUND_OFFS = 32
"""The error of the solution of a linear system, relative to its norm, in condition numbers times the dtype's
round-off."""
ANOTHER_PROCESSOR = 0.02
"""The difference of a metric on another kind of processor, relative to itself. README.md promises it. Models that are
solved in closed form differ by far less; what is learned in many steps comes near to it on small data."""
METRIC = 1e-10
"""The error of sums in float64 that are taken in another order, relative to themselves."""


def assert_entries_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Every entry of `actual` is right to the precision of its own dtype."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected, np.float64), rtol=ENTRYWISE[actual.dtype])


def assert_solved(actual: np.ndarray, expected: np.ndarray, *, condition: float) -> None:
    """`actual` solves a system with that condition number as well as its dtype permits."""
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    allowed = ROUND_OFFS * condition * np.finfo(actual.dtype).eps
    assert error <= allowed, f"relative error {error:.2e} in {actual.dtype}, {allowed:.2e} is allowed"
