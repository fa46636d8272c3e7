"""The memory that a baseline takes."""

from __future__ import annotations

from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, WORKER, Plan, pool_size
from infrec.pipeline.data import Dataset, score_block
from infrec.pipeline.distillation.baselines.config import BaselineConfig
from infrec.pipeline.distillation.config import Method

_CHOSEN_MATRICES = 9
"""Rows × items, of the driver: S twice, the right-hand side and what LAPACK makes of it, α, the best, the store's."""
_FITTED_MATRICES = 8
"""Rows × items, of the driver: S, α, the best, the store's two; R or PᵀR in float64; a share of it."""
_JUDGING_MATRICES = 3
"""Rows × items, of an actor: S, α, S as a product wants it."""
_SHARE_MATRICES = 4
"""Landmarks × items, of an actor: its share of R in float64; the same rounded, and on its way out."""
_KERNELS = 4
"""Rows × rows in the driver: inner products, kernel, its factor or eigenvectors, a temporary."""


def plan_baseline(dataset: Dataset, config: BaselineConfig, *, workers: int | None = None) -> Plan:
    """The memory that `make_baseline` will take with so many workers; None: those of the connected cluster."""
    rows, interactions = config.budget, 0
    if config.method in (Method.RANDOM_INTERACTIONS, Method.SVP_CF):
        interactions = dataset.manifest.counts["train"]
    if config.method == Method.RANDOM_INTERACTIONS:
        rows = min(dataset.num_training_users, round(config.budget * dataset.mean_train_interactions))
    return plan_comparison(
        users=dataset.num_training_users,
        items=dataset.num_items,
        interactions=interactions,
        rows=rows,
        fitted=config.method == Method.NYSTROM,
        workers=min(workers or pool_size(), config.parts),
    )


def plan_comparison(*, users: int, items: int, interactions: int, rows: int, fitted: bool, workers: int) -> Plan:
    """A summary of chosen rows: its kernel system in the driver; where it is `fitted` (Nyström), in float64.

    `interactions`: those that the driver holds in order to choose.
    """
    matrix, kernel = 4 * rows * items, 4 * rows * rows
    train = COPIES * INTERACTION * interactions
    driver = _CHOSEN_MATRICES * matrix + _KERNELS * kernel
    actor = _JUDGING_MATRICES * matrix + score_block(rows, items)
    if fitted:
        driver = _FITTED_MATRICES * matrix + 2 * _KERNELS * kernel
        actor = max(actor, _SHARE_MATRICES * matrix + 2 * _KERNELS * kernel)
    return Plan(
        f"A summary of {rows:,} of {users:,} users",
        {
            "driver": DRIVER + train + driver,
            f"{workers} actors": workers * (WORKER + actor),
        },
    )
