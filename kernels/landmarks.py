"""Landmarks for Nyström: a few rows that span the kernel of many users better than as many random users do.

`cluster_means` makes new rows of weights: the means of clusters of users (Zhang & Kwok, "Clustered Nyström method",
IEEE Trans. Neural Networks 2010). `rpcholesky` chooses some of the users (Chen, Epperly, Tropp & Webber, "Randomly
pivoted Cholesky", 2023, arXiv 2207.06503). It is the block version, with pivots drawn without replacement.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from jaxtyping import Float32, Int

from infrec.kernels.inner_products import squared_norms
from infrec.kernels.kernel_matrix import KernelRows, kernel_block
from infrec.kernels.ntk import NTK
from infrec.kernels.sparse import product
from infrec.kernels.tiles import one_blas_thread

_ROUNDS = 3
"""The number of rounds of k-means. More rounds make no better landmarks (benchmarks/README.md)."""

_USERS = 2048
"""The number of users whose similarity to all centres is held at once."""

_GROUPS = 64
"""The number of users whose likeness to all others is held at once."""

_DRAWS = 10
"""The number of draws into which the pivots are divided.

The pivots of one draw are drawn at once, from the residual that the draws before it left.
"""

_LEVELLING = 0.75
"""`rpcholesky` factors the kernel K(x, y) / (K(x, x) K(y, y))^0.75, whose diagonal is K(x, x)^−0.5.

The diagonal of K itself grows with a user's activity. Landmarks that follow it are all heavy users. They are worse than
uniform ones, because quality is an average over users. The landmarks of this kernel are better (benchmarks/README.md).
"""

_ROUNDING = 1e-6
"""The rounding error of a kernel value, relative to the diagonal. A residual below it says nothing."""


def cluster_means(users: sp.csr_array, count: int, *, seed: int) -> sp.csr_array:
    """Return the means of `count` clusters of users: CSR, count × items, float32.

    `users` is CSR, users × items, float32. The clusters come from spherical k-means: the similarity of two users is the
    cosine of their rows, and the first centres are random users. Where no user is nearest to a cluster, its mean is the
    user that it began with. Raises ValueError for fewer users than `count`.
    """
    first = users[np.sort(np.random.default_rng(seed).choice(users.shape[0], count, replace=False))]
    unit = _of_length_one(users)
    centres = _of_length_one(first)
    for _ in range(_ROUNDS):
        columns = centres.T.toarray(order="C")
        nearest = np.concatenate(
            [
                product(unit[start : start + _USERS], columns).argmax(axis=1)
                for start in range(0, users.shape[0], _USERS)
            ]
        )
        sizes = np.bincount(nearest, minlength=count)
        ones = np.ones(len(nearest), np.float32)
        members = sp.csr_array((ones, (nearest, np.arange(len(nearest)))), shape=(count, len(nearest)))
        alone = sp.diags_array((sizes == 0).astype(np.float32))
        centres = _of_length_one(sp.csr_array(members @ unit + alone @ centres))
    means = sp.diags_array((1 / np.maximum(sizes, 1)).astype(np.float32)) @ (members @ users) + alone @ first
    return _sorted(means)


def like_users_means(users: sp.csr_array, count: int, *, size: int) -> Float32[np.ndarray, "count items"]:
    """Return, for each of the first `count` users, the mean row of the `size` other users that are most like it.

    `users` is CSR, users × items, float32; the similarity of two users is the cosine of their rows. If there are fewer
    other users, the mean is over all of them. A user that is alone has its own row.
    """
    unit = _of_length_one(users)
    columns = unit.T.tocsr()
    size = min(size, users.shape[0] - 1)
    if not size:
        return np.asarray(users.toarray())
    means = np.empty((count, users.shape[1]), np.float32)
    for start in range(0, count, _GROUPS):
        stop = min(start + _GROUPS, count)
        likeness = (unit[start:stop] @ columns).toarray()
        likeness[np.arange(stop - start), np.arange(start, stop)] = -1.0
        # A stable choice among equals: the bytes must not depend on the order in which a partition leaves them
        likest = np.sort(np.argsort(-likeness, axis=1, kind="stable")[:, :size], axis=1)
        ones = np.ones(likest.size, np.float32)
        members = sp.csr_array(
            (ones, likest.ravel(), np.arange(0, likest.size + 1, size)), shape=(stop - start, users.shape[0])
        )
        # Sums of ones are exact, so a mean does not depend on the order of the members
        means[start:stop] = (members @ users).toarray() / np.float32(size)
    return means


def rpcholesky(ntk: NTK, users: KernelRows, count: int, *, seed: int) -> Int[np.ndarray, " count"]:
    """Return the positions of `count` of the `users`, ascending.

    The factor takes users × count float32. The cost is count · (2 · nnz + users · count) floating-point operations,
    with nnz the number of interactions. There must be at least `count` users.
    """
    random = np.random.default_rng(seed)
    diagonal = np.asarray(ntk.diagonal(users.squares, items=users.rows.shape[1]), np.float64)
    level = diagonal**-_LEVELLING
    residual = diagonal * level**2
    least = _ROUNDING * residual  # this gives `count` landmarks even where fewer span everything
    factor = np.empty((len(residual), count), np.float32)
    chosen = np.zeros(len(residual), dtype=bool)
    bounds = sorted({count * draw // _DRAWS for draw in range(_DRAWS + 1)})
    for start, stop in pairwise(bounds):
        span = slice(start, stop)
        weights = np.where(chosen, 0.0, np.maximum(residual, least))
        pivots = random.choice(len(weights), stop - start, replace=False, p=weights / weights.sum())
        chosen[pivots] = True
        columns = kernel_block(ntk, users, users[pivots]) * np.outer(level, level[pivots]).astype(np.float32)
        factor[:, span] = _next_columns(columns, factor[:, :start], pivots)
        residual -= np.einsum("uc,uc->u", factor[:, span], factor[:, span])
    return np.flatnonzero(chosen)


def _next_columns(
    columns: Float32[np.ndarray, "users pivots"],
    factor: Float32[np.ndarray, "users known"],
    pivots: Int[np.ndarray, " pivots"],
) -> Float32[np.ndarray, "users pivots"]:
    """Return (K − F Fᵀ)[:, S] L⁻ᵀ for the pivots S. L is the Cholesky factor of its rows S."""
    with one_blas_thread:
        rest = columns - factor @ factor[pivots].T
        corner = rest[pivots].astype(np.float64)
        corner = (corner + corner.T) / 2
        values, vectors = scipy.linalg.eigh(corner)
        # An inverse root replaces L⁻ᵀ: its columns are rotated ones, and it leaves out pivots that repeat another
        kept = values > _ROUNDING * np.diag(columns[pivots]).max()
        root = np.where(kept, vectors / np.sqrt(np.where(kept, values, 1.0)), 0.0)
        next_columns: np.ndarray = rest @ root.astype(np.float32)
    return next_columns


def _of_length_one(rows: sp.csr_array) -> sp.csr_array:
    """Return the rows divided by their norms. Rows of zeros stay as they are."""
    norms = np.sqrt(squared_norms(rows))
    return _sorted(sp.diags_array(1 / np.where(norms > 0, norms, 1).astype(np.float32)) @ rows)


def _sorted(rows: sp.sparray) -> sp.csr_array:
    """Return the rows as CSR with ascending columns and no explicit zeros."""
    result = sp.csr_array(rows)
    result.eliminate_zeros()
    result.sort_indices()
    return result
