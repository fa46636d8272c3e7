"""The first logits of a summary: means of like users, and at a warm start the logits of an earlier summary."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from infrec.kernels.landmarks import like_users_means
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation.config import DistillConfig
from infrec.pipeline.distillation.warm_start import WarmStart
from infrec.pipeline.models import check_dense
from infrec.pipeline.storage import InputError

_CANDIDATES = 20_000
"""The number of users, drawn at random, that groups of like users are made of."""


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
    """Return the train rows (budget × items) of users drawn at random without replacement."""
    chosen = np.random.default_rng(seed).choice(dataset.num_training_users, budget, replace=False)
    return dataset.training_rows(chosen)


def initial_logits(dataset: Dataset, config: DistillConfig) -> Float32[np.ndarray, "budget items"]:
    """Return the first logits of a cold start: for each synthetic user the mean of a group of like users.

    A group is the `config.start_from_groups` users whose train rows are most like that of a random user, by the cosine,
    without that user. So no row of the logits belongs to anybody. The groups are found among `_CANDIDATES` random
    users, so that memory does not grow with the log. Groups of one user are the random users themselves.
    """
    if config.start_from_groups == 1:
        chosen: np.ndarray = random_users(dataset, config.budget, seed=config.seed).toarray()
        return chosen
    users = dataset.num_training_users
    drawn = min(users, max(_CANDIDATES, 2 * config.budget))
    candidates = dataset.training_rows(np.random.default_rng(config.seed).choice(users, drawn, replace=False))
    return like_users_means(candidates, config.budget, size=config.start_from_groups)


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
