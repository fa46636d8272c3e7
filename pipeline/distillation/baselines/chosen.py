"""Summaries that are chosen, not learned: they have some of the training users, or some of the interactions."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from infrec.kernels.bpr import importance
from infrec.kernels.sparse import chosen_entries
from infrec.pipeline.cluster import Report
from infrec.pipeline.data import Dataset


def head_users(dataset: Dataset, budget: int) -> sp.csr_array:
    """Return the rows of the users with the most train interactions. Among equal users it takes the first."""
    return dataset.training_rows(_greatest(dataset.training_sizes(), budget))


def svp_users(dataset: Dataset, budget: int, *, seed: int, report: Report) -> sp.csr_array:
    """Return the rows of the users whose held-out items a proxy model ranks worst in training: see `kernels.bpr`."""
    train = dataset.training_matrix()
    worst = importance(train, seed=seed, on_epoch=lambda done, total: report("Proxy epochs", done, total))
    return train[_greatest(worst, budget)]


def random_interactions(dataset: Dataset, budget: int, *, seed: int) -> sp.csr_array:
    """Return as many interactions as `budget` users have on average, drawn uniformly from all train interactions.

    Each user with any of them has a row. The budget counts interactions, so there are many more rows than `budget`, and
    each of them is short.
    """
    train = dataset.training_matrix()
    count = round(budget * train.nnz / train.shape[0])
    kept = np.zeros(train.nnz, dtype=bool)
    kept[np.random.default_rng(seed).choice(train.nnz, count, replace=False, shuffle=False)] = True
    chosen = chosen_entries(train, kept)
    return chosen[np.diff(chosen.indptr) > 0]


def _greatest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the `count` greatest values, in ascending order. It takes the first of equal values."""
    return np.sort(np.argsort(-values, kind="stable")[:count])
