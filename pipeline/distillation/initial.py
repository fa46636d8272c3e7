"""What a summary begins with: users at random, and at a warm start the logits of an earlier summary."""

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
    """Raise `InputError` for a budget that the dataset has not as many training users as, or too large a one."""
    check_dense(budget, "budget")
    if not 1 <= budget <= dataset.num_training_users:
        raise InputError(
            f"--budget must lie in 1 … {dataset.num_training_users:,}, the number of training users; it is {budget:,}."
        )


def random_users(dataset: Dataset, budget: int, *, seed: int) -> sp.csr_array:
    """Users at random without replacement: the ones that Distill-CF with this seed begins with."""
    chosen = np.random.default_rng(seed).choice(dataset.num_training_users, budget, replace=False)
    return dataset.training_rows(chosen)


def initial_logits(dataset: Dataset, config: DistillConfig) -> Float32[np.ndarray, "budget items"]:
    """The rows of as many training users, drawn at random without replacement."""
    chosen: np.ndarray = random_users(dataset, config.budget, seed=config.seed).toarray()
    return chosen


def first_logits(
    dataset: Dataset, config: DistillConfig, start: WarmStart | None
) -> Float32[np.ndarray, "budget items"]:
    if start is None:
        return initial_logits(dataset, config)
    if not config.refresh:
        return start.logits
    refreshed: np.ndarray = start.logits + np.float32(config.refresh) * (initial_logits(dataset, config) - start.logits)
    return refreshed
