"""Interactions to learn from, drawn at random: of NumPy and SciPy alone, as the kernels' tests are."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def taste_matrix(users: int, items: int, *, seed: int, per_user: int = 20, rank: int = 4) -> sp.csr_array:
    """Binary interactions with a low-rank taste structure and a long tail, that a model can learn."""
    rng = np.random.default_rng(seed)
    taste = rng.standard_normal((users, rank)) @ rng.standard_normal((rank, items))
    taste += 1.5 * rng.standard_normal(items) + rng.gumbel(size=(users, items))
    counts = rng.integers(max(5, per_user // 2), 2 * per_user, users)
    order = np.argsort(-taste, axis=1)
    rows = np.repeat(np.arange(users), counts)
    columns = np.concatenate([order[user, :count] for user, count in enumerate(counts)])
    return sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(users, items))


def split_matrix(matrix: sp.csr_array, *, seed: int) -> tuple[sp.csr_array, sp.csr_array, sp.csr_array]:
    """Every user's interactions at random into 80 % train, 10 % validation, 10 % test."""
    rng = np.random.default_rng(seed)
    coo = matrix.tocoo()
    part = np.empty(matrix.nnz, dtype=int)
    for user in range(matrix.shape[0]):
        (mine,) = np.nonzero(coo.row == user)
        order = rng.permutation(len(mine))
        part[mine] = np.searchsorted([0.8 * len(mine), 0.9 * len(mine)], order, side="right")
    return tuple(_part(coo, part == number) for number in range(3))


def _part(coo: sp.coo_array, chosen: np.ndarray) -> sp.csr_array:
    matrix = sp.csr_array((np.ones(chosen.sum(), np.float32), (coo.row[chosen], coo.col[chosen])), shape=coo.shape)
    matrix.sort_indices()
    return matrix
