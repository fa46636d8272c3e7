"""The first logits of a summary: means of like users, and at a warm start the logits of an earlier summary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int

from infrec.kernels.landmarks import like_users_means
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation.config import (
    COVERED,
    LEAST_WEIGHTED,
    MOST_WEIGHTED,
    WARM_REFRESH,
    DistillConfig,
    Labels,
)
from infrec.pipeline.distillation.warm_start import WarmStart, logits_near
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


def random_users(dataset: Dataset, budget: int, *, seed: int | Sequence[int]) -> sp.csr_array:
    """Return the train rows (budget × items) of users drawn at random without replacement."""
    chosen = np.random.default_rng(seed).choice(dataset.num_training_users, budget, replace=False)
    return dataset.training_rows(chosen)


def initial_logits(
    dataset: Dataset, config: DistillConfig, items: Int[np.ndarray, " weighted"], *key: int
) -> Float32[np.ndarray, "budget weighted"]:
    """Return the first logits of a cold start, of `items`: for each synthetic user the mean of a group of like users.

    A group is the `config.start_from_groups` users whose train rows are most like that of a random user, by the cosine,
    without that user. So no row of the logits belongs to anybody. The groups are found among `_CANDIDATES` random
    users, so that memory does not grow with the log. Groups of one user are the random users themselves. The random
    users depend on the seed and on `key`.
    """
    seed = [config.seed, *key]
    if config.start_from_groups == 1:
        chosen: np.ndarray = random_users(dataset, config.budget, seed=seed)[:, items].toarray()
        return chosen
    drawn = min(dataset.num_training_users, max(_CANDIDATES, 2 * config.budget))
    candidates = random_users(dataset, drawn, seed=seed)
    return like_users_means(candidates[:, items], config.budget, size=config.start_from_groups)


def first_logits(
    dataset: Dataset, config: DistillConfig, items: Int[np.ndarray, " weighted"], start: WarmStart | None
) -> Float32[np.ndarray, "budget weighted"]:
    """Return the first logits of `items`: a cold start's, or those of `start`, moved towards them by `refresh`."""
    if start is not None and not config.refresh:
        return start.logits
    cold = initial_logits(dataset, config, items)
    return cold if start is None else _moved(start.logits, cold, config.refresh)


def restarted_logits(
    dataset: Dataset,
    config: DistillConfig,
    items: Int[np.ndarray, " weighted"],
    summary: Float32[np.ndarray, "budget weighted"],
    restart: int,
) -> Float32[np.ndarray, "budget weighted"]:
    """Return the logits of a restart: those of `summary`, moved half-way towards a cold start from other users."""
    known = logits_near(summary, config.sampler.temperature)
    return _moved(known, initial_logits(dataset, config, items, restart), WARM_REFRESH)


def _moved(
    known: Float32[np.ndarray, "budget weighted"], cold: Float32[np.ndarray, "budget weighted"], part: float
) -> Float32[np.ndarray, "budget weighted"]:
    moved: np.ndarray = known + np.float32(part) * (cold - known)
    return moved
