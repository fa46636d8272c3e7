"""The memory and the disk that each solver of the ∞-AE takes: of all processes of this machine but Ray's own."""

from __future__ import annotations

import os

from infrec.kernels.tiles import Layout
from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, WORKER, Plan, pool_size
from infrec.pipeline.data import USER_BLOCK, Dataset, score_blocks
from infrec.pipeline.models import InfiniteAEConfig, NystromConfig, check_landmarks, tried_lambdas
from infrec.pipeline.solvers.normal_equations import SLICE_USERS

_SHARE_MATRICES = 4
"""Landmarks × items, of an actor: its share of R in float64; the same rounded, and on its way out."""
_SUMMED_MATRICES = 4
"""Landmarks × items, of the driver while shares are added up: R in float64, the best and the last β."""
_SOLVED_MATRICES = 5
"""Landmarks × items, of the driver while β are judged: PᵀR in float64, the last, the best and the next β."""
_KERNEL_COPIES = 4 * 3 + 8
"""Bytes of a user's kernel with a landmark in an actor: inner product, padded, kernel, and that in float64."""
_KERNELS = 4
"""Rows × rows in the driver: inner products, kernel, its factor or eigenvectors, a temporary."""

_STEP_TILES = 6
"""Tiles in an actor that makes one: the sum, a product, two that are read, the result in bytes and on its way out."""
_SCORING_COLUMNS = 4
"""Users × a block of users, in an actor: columns of the inverse or the kernel, its product with it, a copy, a strip."""

_FEW_TILES = 8
"""Tile rows below which smaller tiles give the actors more to do at once."""


def tile_of(users: int) -> int:
    """Rows of a tile: large ones are read less often for each operation."""
    return 2048 if users >= _FEW_TILES * 2048 else 1024


def plan_exact(dataset: Dataset, config: InfiniteAEConfig, *, workers: int | None = None) -> Plan:
    """The memory that `fit_exact` will take with so many workers; None: those of the connected cluster."""
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
    """The memory and the disk that `fit_tiled` will take with so many workers; None: those of the cluster."""
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
    """The memory that `fit_nystrom` will take with so many workers; None: those of the connected cluster.

    Raises `InputError` for too many landmarks.
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
        judged=min(config.judged_users, dataset.num_users),
        slice_users=SLICE_USERS,
        workers=workers or pool_size(),
    )


def plan_kernel_system(*, users: int, items: int, interactions: int, kept: int, workers: int) -> Plan:
    """∞-AE, exact and in memory: the lower tiles of K and of M, and `kept` solutions (a second one is the best).

    A solution is α where there are fewer items than users, else M itself.
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
            "score blocks": score_blocks(users, items),
            "driver": DRIVER + train,
            f"{workers} actors": workers * (WORKER + train),
        },
        remedy="fix --lambda and --exponents to save a copy, fit with --solver nystrom",
    )


def plan_tiled_system(*, users: int, items: int, interactions: int, tile: int, candidates: int, workers: int) -> Plan:
    """The kernel system in files: K, L, W and the inverse of one candidate, and the best inverse so far."""
    matrix = 4 * Layout(users, tile).lower_entries
    train = COPIES * INTERACTION * interactions
    step = _STEP_TILES * 4 * tile * tile
    judging = _SCORING_COLUMNS * 4 * USER_BLOCK * users + score_blocks(0, items) // (os.cpu_count() or 1)
    return Plan(
        f"The kernel system of {users:,} users in files",
        {
            "driver": DRIVER + train,
            f"{workers} actors": workers * (WORKER + train + max(step, judging)),
        },
        disk=matrix * (5 if candidates > 1 else 4),
        remedy="fit with --solver nystrom",
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
    slice_users: int,
    workers: int,
) -> Plan:
    """Nyström: while actors add up their shares, or, if it is more, while the driver judges by `judged` users.

    It holds these, and the `chosen` users that landmarks are made of; an actor reads one shard at a time.
    """
    matrix, square = 4 * landmarks * items, 8 * landmarks * landmarks
    history = COPIES * INTERACTION * interactions / max(users, 1)
    driver = DRIVER + int((chosen + judged) * history) + 2 * _KERNELS * square
    share = _SHARE_MATRICES * matrix + _KERNEL_COPIES * slice_users * landmarks + 2 * square
    shard = COPIES * INTERACTION * interactions // max(shards, 1)
    summing = {
        "driver": driver + _SUMMED_MATRICES * matrix,
        f"{workers} actors": workers * (WORKER + shard + share),
    }
    judging = {
        "driver": driver + _SOLVED_MATRICES * matrix,
        "score blocks": score_blocks(landmarks, items),
        f"{workers} actors": workers * WORKER,
    }
    return Plan(
        f"{landmarks:,} landmarks of {users:,} users",
        max(summing, judging, key=lambda parts: sum(parts.values())),
        remedy="take fewer --landmarks",
    )
