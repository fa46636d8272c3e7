"""The memory that a distillation takes."""

from __future__ import annotations

from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, WORKER, Plan, pool_size
from infrec.pipeline.data import Dataset, judging_users, score_block
from infrec.pipeline.distillation.config import DistillConfig, Labels
from infrec.pipeline.distillation.initial import weighted_items
from infrec.pipeline.solvers import STRIP_BYTES, STRIP_ENTRIES

_COMPILED = 100_000_000
"""Bytes that remain in use after the way through sampler, kernel and solve, and back, has been compiled."""
_DRIVER_MATRICES = 15
"""Budget × weighted items matrices in the driver while it learns: the logits, Adam's two, the best summary, S, α, their
derivatives, and those that a vjp keeps."""
_ACTOR_MATRICES = 6
"""The same in a worker: S, α, their derivatives, and the temporary of a product."""
_KEPT_MATRICES = 4
"""Those of them that the driver still holds while it solves labels: the logits, Adam's two, the best summary."""
_FACTOR_MATRICES = 4
"""Rank × items matrices in the driver while labels are judged: the last factor, a lower one, its levels, a copy."""


def plan_distillation(dataset: Dataset, config: DistillConfig, *, workers: int | None = None) -> Plan:
    """Return the memory that `distill` will take with so many workers. None means those of the connected cluster."""
    weighted = len(weighted_items(dataset, config))
    config = config.for_items(weighted)
    return plan_summary(
        users=dataset.num_training_users,
        items=dataset.num_items,
        weighted=weighted,
        rank=min(config.label_rank, config.budget) if config.labels == Labels.SOLVED else 0,
        interactions=dataset.manifest.counts["train"],
        shards=dataset.num_shards,
        budget=config.budget,
        noise_rows=config.sampler.draws * min(config.sampler.groups, config.budget),
        held=min(config.batch + judging_users(config.judged_users, dataset.num_items), dataset.num_training_users),
        workers=min(workers or pool_size(), config.parts),
    )


def plan_summary(
    *,
    users: int,
    items: int,
    weighted: int,
    rank: int,
    interactions: int,
    shards: int,
    budget: int,
    noise_rows: int,
    held: int,
    workers: int,
) -> Plan:
    """Return the memory of Distill-CF: a few budget × items matrices in a process, and a block of scores in a worker.

    Only `weighted` of the items have weights. All have labels, of this `rank`; 0 means that none are solved.

    All train interactions are in files. Memory holds one shard for each worker, and the histories of the `held` users
    of batches and validation.
    """
    matrix, targets = 4 * budget * weighted, 4 * budget * items
    strip = min(budget * items, STRIP_ENTRIES)
    learning = _DRIVER_MATRICES * matrix + 2 * 4 * noise_rows * weighted
    solving = _KEPT_MATRICES * matrix + targets + 4 * _FACTOR_MATRICES * rank * items + 2 * 8 * strip if rank else 0
    shard = COPIES * INTERACTION * interactions // max(shards, 1)
    histories = COPIES * INTERACTION * interactions * held // max(users, 1)
    scores = score_block(0, items)
    return Plan(
        f"Distilling {users:,} users into {budget:,}",
        {
            "driver": DRIVER + _COMPILED + max(learning, solving),
            f"{workers} workers": workers
            * (WORKER + max(_ACTOR_MATRICES * matrix + scores, STRIP_BYTES * strip if rank else 0) + shard)
            + histories,
        },
        remedy="take fewer synthetic users, give weights to fewer items" if rank else "take fewer synthetic users",
        remedy_settings=("budget", "weighted_items") if rank else ("budget",),
        disk=4 * interactions,
    )
