"""The first logits of a summary: means of like users, and at a warm start the logits of an earlier summary."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int

from infrec.kernels.landmarks import like_users_means
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation.config import COVERED, LEAST_WEIGHTED, MOST_WEIGHTED, DistillConfig, Labels
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


def weighted_items(dataset: Dataset, config: DistillConfig) -> Int[np.ndarray, " weighted"]:
    """Return the items that synthetic users have weights for, ascending: the most popular ones.

    Labels that are the users' own rows can predict only these, so then they are all items.
    """
    if config.labels == Labels.OWN:
        return np.arange(dataset.num_items)
    counts = dataset.items()["train_count"].to_numpy()
    popular = np.argsort(-counts, kind="stable")
    if (number := config.weighted_items) is None:
        covering = int(np.searchsorted(np.cumsum(counts[popular]), COVERED * counts.sum())) + 1
        number = min(max(covering, LEAST_WEIGHTED), MOST_WEIGHTED)
    return np.sort(popular[:number])


def random_users(dataset: Dataset, budget: int, *, seed: int) -> sp.csr_array:
    """Return the train rows (budget × items) of users drawn at random without replacement."""
    chosen = np.random.default_rng(seed).choice(dataset.num_training_users, budget, replace=False)
    return dataset.training_rows(chosen)


def initial_logits(
    dataset: Dataset, config: DistillConfig, items: Int[np.ndarray, " weighted"]
) -> Float32[np.ndarray, "budget weighted"]:
    """Return the first logits of a cold start, of `items`: for each synthetic user the mean of a group of like users.

    A group is the `config.start_from_groups` users whose train rows are most like that of a random user, by the cosine,
    without that user. So no row of the logits belongs to anybody. The groups are found among `_CANDIDATES` random
    users, so that memory does not grow with the log. Groups of one user are the random users themselves.
    """
    if config.start_from_groups == 1:
        chosen: np.ndarray = random_users(dataset, config.budget, seed=config.seed)[:, items].toarray()
        return chosen
    users = dataset.num_training_users
    drawn = min(users, max(_CANDIDATES, 2 * config.budget))
    candidates = dataset.training_rows(np.random.default_rng(config.seed).choice(users, drawn, replace=False))
    return like_users_means(candidates[:, items], config.budget, size=config.start_from_groups)


def first_logits(
    dataset: Dataset, config: DistillConfig, items: Int[np.ndarray, " weighted"], start: WarmStart | None
) -> Float32[np.ndarray, "budget weighted"]:
    """Return the first logits of `items`: a cold start's, or those of `start`, moved towards them by `refresh`."""
    if start is None:
        return initial_logits(dataset, config, items)
    begun = start.logits
    if not config.refresh:
        return begun
    refreshed: np.ndarray = begun + np.float32(config.refresh) * (initial_logits(dataset, config, items) - begun)
    return refreshed
