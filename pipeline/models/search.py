"""Model selection: the candidates of a search with their metrics on validation, and checks of a search's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infrec.kernels.metrics import METRICS
from infrec.kernels.tiles import LARGEST_CALL
from infrec.pipeline.storage import InputError


@dataclass(frozen=True)
class Candidate:
    """One candidate of a search: its hyper-parameters and its metrics on the validation part."""

    parameters: Mapping[str, float]
    metrics: Mapping[str, float]


def check_search(lambdas: Sequence[float], select: str) -> None:
    """Raise `InputError` if the grid is empty, if a λ is negative or not finite, or if the metric is unknown."""
    if not lambdas or not all(0 <= lam < float("inf") for lam in lambdas):
        raise InputError(f"λ must be finite and not negative, the grid is {list(lambdas)}.")
    if select not in METRICS:
        raise InputError(f"{select} is not a metric: there are {', '.join(METRICS)}.", "select")


def check_dense(rows: int, setting: str) -> None:
    """Raise `InputError` if a dense system has more rows than LAPACK is given in one call.

    `setting` is the field of the config that sets the number of rows.
    """
    if rows > LARGEST_CALL:
        raise InputError(f"A dense system has at most {LARGEST_CALL:,} rows, this one would have {rows:,}.", setting)


def best_candidate(candidates: Sequence[Candidate], metric: str) -> Candidate:
    """Return the candidate with the highest metric. Among equal candidates it is the first."""
    return max(candidates, key=lambda candidate: candidate.metrics[metric])


def best_so_far(candidates: Sequence[Candidate], metric: str) -> dict[str, float]:
    """Return the best metric so far, as the detail of a `Report`. It is empty if there are no candidates yet."""
    return {f"best {metric}": best_candidate(candidates, metric).metrics[metric]} if candidates else {}
