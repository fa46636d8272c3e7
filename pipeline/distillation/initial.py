"""The first logits of a summary: those of random users, and at a warm start those of an earlier summary."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation.config import DistillConfig
from infrec.pipeline.distillation.warm_start import WarmStart
from infrec.pipeline.models import check_dense
from infrec.pipeline.storage import InputError


def check_budget(budget: int, dataset: Dataset) -> None:
    """Raise `InputError` if the budget is below 1, above the number of training users, or too large for LAPACK."""
    check_dense(budget, "budget")
    if not 1 <= budget <= dataset.num_training_users:
        raise InputError(
            f"The budget must lie in 1 … {dataset.num_training_users:,}, the number of training users; "
            f"it is {budget:,}.",
            "budget",
        )


def random_users(dataset: Dataset, budget: int, *, seed: int) -> sp.csr_array:
    """Return the train rows (budget × items) of users drawn at random without replacement.

    Distill-CF with the same seed begins with these users.
    """
    chosen = np.random.default_rng(seed).choice(dataset.num_training_users, budget, replace=False)
    return dataset.training_rows(chosen)


def initial_logits(dataset: Dataset, config: DistillConfig) -> Float32[np.ndarray, "budget items"]:
    """Return the first logits of a cold start: the train rows of random users, one for each synthetic user."""
    chosen: np.ndarray = random_users(dataset, config.budget, seed=config.seed).toarray()
    return chosen


def first_logits(
    dataset: Dataset, config: DistillConfig, start: WarmStart | None
) -> Float32[np.ndarray, "budget items"]:
    """Return the first logits: those of a cold start, or those of `start`, moved towards them by `config.refresh`."""
    if start is None:
        return initial_logits(dataset, config)
    if not config.refresh:
        return start.logits
    refreshed: np.ndarray = start.logits + np.float32(config.refresh) * (initial_logits(dataset, config) - start.logits)
    return refreshed
