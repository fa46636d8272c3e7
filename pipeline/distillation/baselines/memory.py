"""The memory that a baseline takes."""

from __future__ import annotations

from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, WORKER, Plan, pool_size
from infrec.pipeline.data import Dataset, score_block
from infrec.pipeline.distillation.baselines.config import BaselineConfig
from infrec.pipeline.distillation.config import Method

_CHOSEN_MATRICES = 9
"""Rows × items matrices in the driver of a chosen summary: S twice, the right-hand side and LAPACK's result, α, the
best α, and those of the object store."""
_FITTED_MATRICES = 8
"""Rows × items matrices in the driver of a fitted summary: S, α, the best α, the object store's two, R or PᵀR in
float64, and a share of it."""
_JUDGING_MATRICES = 3
"""Rows × items matrices in a worker that judges: S, α, and S in the layout that a product needs."""
_SHARE_MATRICES = 4
"""Landmarks × items matrices in a worker that fits: its share of R in float64, the share rounded, and the copy that is
sent."""
_KERNELS = 4
"""Rows × rows matrices in the driver: the inner products, the kernel, its factor or eigenvectors, and a temporary."""


def plan_baseline(dataset: Dataset, config: BaselineConfig, *, workers: int | None = None) -> Plan:
    """Return the memory that `make_baseline` will take with so many workers. None means the connected cluster's."""
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
    """Return the memory of a summary of chosen rows. The driver holds its kernel system, in float64 if it is `fitted`.

    Nyström is fitted. `interactions` is the number of interactions that the driver holds in order to choose.
    """
    matrix, kernel = 4 * rows * items, 4 * rows * rows
    train = COPIES * INTERACTION * interactions
    driver = _CHOSEN_MATRICES * matrix + _KERNELS * kernel
    worker = _JUDGING_MATRICES * matrix + score_block(rows, items)
    if fitted:
        driver = _FITTED_MATRICES * matrix + 2 * _KERNELS * kernel
        worker = max(worker, _SHARE_MATRICES * matrix + 2 * _KERNELS * kernel)
    return Plan(
        f"A summary of {rows:,} of {users:,} users",
        {
            "driver": DRIVER + train + driver,
            f"{workers} workers": workers * (WORKER + worker),
        },
        remedy="take fewer users",
        remedy_settings=("budget",),
    )
