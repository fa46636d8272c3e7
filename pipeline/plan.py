"""Memory is planned, not discovered: what a fit will allocate, said before it starts and refused if it cannot fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from kernels.tiles import TILE, Layout
from pipeline.errors import DoesNotFit
from pipeline.validation import USER_BLOCK

# Resident memory before any data is held, of the driver and of one CPU actor: Python, Ray, NumPy, SciPy, Arrow, JAX
_DRIVER = 250_000_000
_WORKER = 200_000_000
_COMPILED = 100_000_000
"""What stays of compiling the way through sampler, kernel and solve and back."""
_INTERACTION = 8
"""Bytes of an entry of a sparse matrix: a float32 and an int32."""
_COPIES = 4
"""Of the train matrix in a process: as read, its transpose, the normalised rows, a product's temporary."""

_DRIVER_MATRICES = 16
"""Budget × items: logits, Adam's two, the best summary and its logits, S, α, their derivatives, what a vjp keeps."""
_ACTOR_MATRICES = 6
"""Budget × items: S, α, their derivatives, a product's temporary."""

_CHOSEN_MATRICES = 9
"""Rows × items, of the driver: S twice, the right-hand side and what LAPACK makes of it, α, the best, the store's."""
_FITTED_MATRICES = 8
"""Rows × items, of the driver: S, α, the best, the store's two; R or PᵀR in float64; a share of it."""
_JUDGING_MATRICES = 3
"""Rows × items, of an actor: S, α, S as a product wants it."""
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


@dataclass(frozen=True)
class Plan:
    """The parts of a job's peak memory, in bytes, over all processes of this machine but Ray's own."""

    job: str
    parts: Mapping[str, int]
    disk: int = 0
    """Bytes of files while it runs, beside what it publishes."""
    remedy: str = "fix --lambda and --exponents to save a copy"
    """What to do, besides the obvious, where it does not fit."""

    @property
    def peak(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in self.parts.items())
        files = f" and {gigabytes(self.disk)} of files" if self.disk else ""
        return f"{self.job} needs {gigabytes(self.peak)} ({parts}){files}"

    def require(self, limit: int | None, disk: int | None = None) -> None:
        """Raise `DoesNotFit`, with the numbers, if the plan needs more than `limit` of memory or `disk` of files."""
        if limit is not None and self.peak > limit:
            raise DoesNotFit(
                f"{self}, the memory limit is {gigabytes(limit)}: raise --memory-limit, {self.remedy}, "
                f"or ingest fewer users or items (--min-user-interactions, --k-core)."
            )
        if disk is not None and self.disk > disk:
            raise DoesNotFit(
                f"{self}, the disk of --out has room for {gigabytes(disk)}: choose an --out on a larger one, "
                f"or {self.remedy}."
            )


def plan_kernel_system(*, users: int, items: int, interactions: int, kept: int, workers: int) -> Plan:
    """∞-AE, exact and in memory: the lower tiles of K and of M, and `kept` solutions (a second one is the best).

    A solution is α where there are fewer items than users, else M itself.
    """
    tiles = 4 * _lower_entries(users)
    if items <= users:
        solutions = {"inverse": tiles, "α" if kept == 1 else f"{kept} α": kept * 4 * users * items}
    else:
        solutions = {"inverse" if kept == 1 else f"{kept} inverses": kept * tiles}
    train = _COPIES * _INTERACTION * interactions
    return Plan(
        f"The kernel system of {users:,} users",
        {
            "Gram matrix": tiles,
            **solutions,
            "score blocks": _score_blocks(users, items),
            "driver": _DRIVER + train,
            f"{workers} actors": workers * (_WORKER + train),
        },
        remedy="fix --lambda and --exponents to save a copy, fit with --solver nystrom",
    )


def plan_tiled_system(*, users: int, items: int, interactions: int, tile: int, candidates: int, workers: int) -> Plan:
    """The kernel system in files: K, L, W and the inverse of one candidate, and the best inverse so far."""
    matrix = 4 * _lower_entries(users, tile)
    train = _COPIES * _INTERACTION * interactions
    step = _STEP_TILES * 4 * tile * tile
    judging = _SCORING_COLUMNS * 4 * USER_BLOCK * users + _score_blocks(0, items) // (os.cpu_count() or 1)
    return Plan(
        f"The kernel system of {users:,} users in files",
        {
            "driver": _DRIVER + train,
            f"{workers} actors": workers * (_WORKER + train + max(step, judging)),
        },
        disk=matrix * (5 if candidates > 1 else 4),
        remedy="fit with --solver nystrom",
    )


def plan_item_system(*, items: int, interactions: int, weights: int) -> Plan:
    """EASE: the lower tiles of the items' Gram matrix and of its inverse, and `weights` item × item matrices."""
    return Plan(
        f"The item system of {items:,} items",
        {
            "Gram matrix": 4 * _lower_entries(items),
            "inverse": 4 * _lower_entries(items),
            "weights": 4 * items * items * weights,
            "score blocks": _score_blocks(0, items),
            "driver": _DRIVER + _COPIES * _INTERACTION * interactions,
        },
    )


def plan_factorisation(*, users: int, items: int, interactions: int, factors: int) -> Plan:
    """ALS: the factors of users and items (also the best's), the rows and their transpose, a block's systems."""
    systems = (os.cpu_count() or 1) * USER_BLOCK * 2 * 4 * factors * factors
    return Plan(
        f"The factorisation of {users:,} × {items:,}",
        {
            "factors": 4 * factors * (users + 2 * items),
            "score blocks": _score_blocks(0, items) + systems,
            "driver": _DRIVER + _COPIES * _INTERACTION * interactions,
        },
    )


def plan_summary(
    *,
    users: int,
    items: int,
    interactions: int,
    shards: int,
    budget: int,
    noise_rows: int,
    held: int,
    workers: int,
) -> Plan:
    """Distill-CF: a few budget × items matrices in every process, and a block of scores in every actor.

    All train interactions are in files; in memory are one shard a process, and `held` users of batches and validation.
    """
    matrix = 4 * budget * items
    shard = _COPIES * _INTERACTION * interactions // max(shards, 1)
    histories = _COPIES * _INTERACTION * interactions * held // max(users, 1)
    scores = _score_blocks(0, items) // (os.cpu_count() or 1)
    return Plan(
        f"Distilling {users:,} users into {budget:,}",
        {
            "driver": _DRIVER + _COMPILED + _DRIVER_MATRICES * matrix + 2 * 4 * noise_rows * items,
            f"{workers} actors": workers * (_WORKER + _ACTOR_MATRICES * matrix + scores + shard) + histories,
        },
        disk=4 * interactions,
    )


def plan_comparison(*, users: int, items: int, interactions: int, rows: int, fitted: bool, workers: int) -> Plan:
    """A summary of chosen rows: its kernel system in the driver; where it is `fitted` (Nyström), in float64.

    `interactions`: those that the driver holds in order to choose.
    """
    matrix, kernel = 4 * rows * items, 4 * rows * rows
    train = _COPIES * _INTERACTION * interactions
    driver = _CHOSEN_MATRICES * matrix + _KERNELS * kernel
    actor = _JUDGING_MATRICES * matrix + _score_blocks(rows, items)
    if fitted:
        driver = _FITTED_MATRICES * matrix + 2 * _KERNELS * kernel
        actor = max(actor, _SHARE_MATRICES * matrix + 2 * _KERNELS * kernel)
    return Plan(
        f"A summary of {rows:,} of {users:,} users",
        {
            "driver": _DRIVER + train + driver,
            f"{workers} actors": workers * (_WORKER + actor),
        },
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
    history = _COPIES * _INTERACTION * interactions / max(users, 1)
    driver = _DRIVER + int((chosen + judged) * history) + 2 * _KERNELS * square
    share = _SHARE_MATRICES * matrix + _KERNEL_COPIES * slice_users * landmarks + 2 * square
    shard = _COPIES * _INTERACTION * interactions // max(shards, 1)
    summing = {
        "driver": driver + _SUMMED_MATRICES * matrix,
        f"{workers} actors": workers * (_WORKER + shard + share),
    }
    judging = {
        "driver": driver + _SOLVED_MATRICES * matrix,
        "score blocks": _score_blocks(landmarks, items),
        f"{workers} actors": workers * _WORKER,
    }
    return Plan(
        f"{landmarks:,} landmarks of {users:,} users",
        max(summing, judging, key=lambda parts: sum(parts.values())),
        remedy="take fewer --landmarks",
    )


def _lower_entries(size: int, tile: int = TILE) -> int:
    layout = Layout(size, tile)
    return sum((row.stop - row.start) * row.stop for row in layout.spans())


def _score_blocks(users: int, items: int) -> int:
    """A block's dual weights, its scores in both memory orders, a partition of them and two masks, for each thread."""
    return (os.cpu_count() or 1) * USER_BLOCK * (4 * users + (4 * 3 + 2) * items)


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
