"""Model selection: candidates with their metrics on the validation part, and what a search may be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infrec.kernels.metrics import METRICS
from infrec.kernels.tiles import LARGEST_CALL
from infrec.pipeline.storage import InputError


@dataclass(frozen=True)
class Candidate:
    """One candidate of a model selection: its hyper-parameters and its metrics on the validation part."""

    parameters: Mapping[str, float]
    metrics: Mapping[str, float]


def check_search(lambdas: Sequence[float], select: str) -> None:
    """Raise `InputError` for an empty grid, a λ that is negative or not a number, or an unknown metric."""
    if not lambdas or not all(0 <= lam < float("inf") for lam in lambdas):
        raise InputError(f"λ must be finite and not negative, the grid is {list(lambdas)}.")
    if select not in METRICS:
        raise InputError(f"--select {select} is not a metric: there are {', '.join(METRICS)}.")


def check_dense(rows: int, option: str) -> None:
    """Raise `InputError` where `option` asks for a dense system of more rows than LAPACK is given in one call."""
    if rows > LARGEST_CALL:
        raise InputError(f"{option} is for dense systems of at most {LARGEST_CALL:,} rows, this would be {rows:,}.")


def best_candidate(candidates: Sequence[Candidate], metric: str) -> Candidate:
    """The candidate with the highest metric; of equal ones the first."""
    return max(candidates, key=lambda candidate: candidate.metrics[metric])


def best_so_far(candidates: Sequence[Candidate], metric: str) -> dict[str, float]:
    """How a search goes, for its `Report`."""
    return {f"best {metric}": best_candidate(candidates, metric).metrics[metric]} if candidates else {}
