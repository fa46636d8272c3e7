"""The memory and the disk that each solver of the ∞-AE takes, over all processes of this machine but Ray's own."""

from __future__ import annotations

from infrec.kernels.tiles import Layout
from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, WORKER, Plan, pool_size
from infrec.pipeline.data import Dataset, block_users, judging_threads, judging_users, score_block
from infrec.pipeline.models import InfiniteAEConfig, NystromConfig, check_landmarks, tried_lambdas
from infrec.pipeline.solvers.normal_equations import SLICE_USERS, STRIP_BYTES, STRIP_ENTRIES

_KEPT_MATRICES = 2
"""Landmarks × items float32 matrices in the driver: R or PᵀR, and the PᵀR of the best pair of exponents so far."""
_SUMMED_BYTES = 8 + 2 * 4
"""Bytes in the driver for each entry of a strip of R that it adds up: in float64, and the shares that have come."""
_KERNEL_COPIES = 4 * 3 + 8
"""Bytes in a worker for one user and one landmark: inner product, its padded copy, kernel, and kernel in float64."""
_KERNELS = 4
"""Rows × rows matrices in the driver: inner products, the kernel, its factor or eigenvectors, a temporary."""

_STEP_TILES = 6
"""Tiles in a worker that makes one: the sum, a product, two that it reads, the result in bytes and on its way out."""
_SCORING_COLUMNS = 4
"""Matrices of users × a block of users in a worker that judges.

They are: columns of the inverse or of the kernel, the product of the kernel with the inverse, a copy, a strip.
"""

_FEW_TILES = 8
"""The number of tile rows below which tiles are smaller, so that the workers have more to do at once."""


def tile_of(users: int) -> int:
    """Return the number of rows of a tile. Large tiles are read less often for each operation."""
    return 2048 if users >= _FEW_TILES * 2048 else 1024


def plan_exact(dataset: Dataset, config: InfiniteAEConfig, *, workers: int | None = None) -> Plan:
    """Return the memory that `fit_exact` will take with so many workers; None: as the connected cluster has."""
    counts = dataset.manifest.counts
    candidates = len(config.exponents) * len(tried_lambdas(dataset, config))
    return plan_kernel_system(
        users=counts["users"] - counts["held_out_users"],
        items=dataset.num_items,
        interactions=counts["train"],
        kept=2 if candidates > 1 else 1,
        workers=workers or pool_size(),
    )


def plan_tiled(dataset: Dataset, config: InfiniteAEConfig, *, workers: int | None = None) -> Plan:
    """Return the memory and disk that `fit_tiled` will take with so many workers; None: as the cluster has."""
    users = dataset.num_training_users
    candidates = len(config.exponents) * len(tried_lambdas(dataset, config))
    return plan_tiled_system(
        users=users,
        items=dataset.num_items,
        interactions=dataset.manifest.counts["train"],
        tile=tile_of(users),
        candidates=candidates,
        workers=workers or pool_size(),
    )


def plan_nystrom(dataset: Dataset, config: NystromConfig, *, workers: int | None = None) -> Plan:
    """Return the memory that `fit_nystrom` will take with so many workers; None: as the connected cluster has.

    Raises `InputError` if there are too many landmarks.
    """
    check_landmarks(config.landmarks, dataset)
    users = dataset.num_training_users
    return plan_normal_equations(
        users=users,
        items=dataset.num_items,
        interactions=dataset.manifest.counts["train"],
        shards=dataset.num_shards,
        landmarks=config.landmarks,
        chosen=config.drawn_users(users),
        judged=min(judging_users(config.judged_users, dataset.num_items), dataset.num_users),
        kernels=len(config.exponents),
        slice_users=SLICE_USERS,
        workers=workers or pool_size(),
    )


def plan_kernel_system(*, users: int, items: int, interactions: int, kept: int, workers: int) -> Plan:
    """Return the memory, in bytes, that the exact ∞-AE takes if its kernel system lies in memory.

    It holds the lower tiles of K and of M, and `kept` solutions. A second solution is the best one so far. A solution
    is α if there are no more items than users, else M itself.
    """
    tiles = 4 * Layout(users).lower_entries
    if items <= users:
        solutions = {"inverse": tiles, "α" if kept == 1 else f"{kept} α": kept * 4 * users * items}
    else:
        solutions = {"inverse" if kept == 1 else f"{kept} inverses": kept * tiles}
    train = COPIES * INTERACTION * interactions
    return Plan(
        f"The kernel system of {users:,} users",
        {
            "Gram matrix": tiles,
            **solutions,
            "score blocks": judging_threads(users, items) * score_block(users, items),
            "driver": DRIVER + train,
            f"{workers} workers": workers * (WORKER + train),
        },
        remedy="fix λ and the exponents to save a copy, take the Nyström solver",
        remedy_settings=("lambdas", "exponents", "solver"),
    )


def plan_tiled_system(*, users: int, items: int, interactions: int, tile: int, candidates: int, workers: int) -> Plan:
    """Return the memory and the disk, in bytes, that the exact ∞-AE takes if its kernel system lies in files.

    The files are K, L, W and the inverse of one candidate, and the best inverse so far.
    """
    matrix = 4 * Layout(users, tile).lower_entries
    train = COPIES * INTERACTION * interactions
    step = _STEP_TILES * 4 * tile * tile
    judging = _SCORING_COLUMNS * 4 * block_users(items) * users + score_block(0, items)
    return Plan(
        f"The kernel system of {users:,} users in files",
        {
            "driver": DRIVER + train,
            f"{workers} workers": workers * (WORKER + train + max(step, judging)),
        },
        disk=matrix * (5 if candidates > 1 else 4),
        remedy="take the Nyström solver",
        remedy_settings=("solver",),
    )


def plan_normal_equations(
    *,
    users: int,
    items: int,
    interactions: int,
    shards: int,
    landmarks: int,
    chosen: int,
    judged: int,
    kernels: int,
    slice_users: int,
    workers: int,
) -> Plan:
    """Return the memory that the Nyström solver takes, in bytes.

    It is the larger of two: the memory while the workers add up their shares, and the memory while the driver judges by
    `judged` users. The driver holds these users, and the `chosen` users that landmarks are made of. `kernels` is the
    number of pairs of exponents that are tried. A worker reads one shard at a time.
    """
    matrix, square = 4 * landmarks * items, 8 * landmarks * landmarks
    history = COPIES * INTERACTION * interactions / max(users, 1)
    strip = min(landmarks * items, STRIP_ENTRIES)
    driver = DRIVER + int((chosen + judged) * history) + 2 * _KERNELS * square + min(kernels, _KEPT_MATRICES) * matrix
    share = STRIP_BYTES * strip + _KERNEL_COPIES * slice_users * landmarks + 2 * square
    shard = COPIES * INTERACTION * interactions // max(shards, 1)
    summing = {
        "driver": driver + _SUMMED_BYTES * strip,
        f"{workers} workers": workers * (WORKER + shard + share),
    }
    judging = {
        "driver": driver,
        "score blocks": judging_threads(judged, items) * score_block(landmarks, items),
        f"{workers} workers": workers * WORKER,
    }
    return Plan(
        f"{landmarks:,} landmarks of {users:,} users",
        max(summing, judging, key=lambda parts: sum(parts.values())),
        remedy="take fewer landmarks",
        remedy_settings=("landmarks",),
    )
