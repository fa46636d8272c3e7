"""The memory that a distillation takes."""

from __future__ import annotations

from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, WORKER, Plan, pool_size
from infrec.pipeline.data import Dataset, score_block
from infrec.pipeline.distillation.config import DistillConfig

_COMPILED = 100_000_000
"""What stays of compiling the way through sampler, kernel and solve and back."""
_DRIVER_MATRICES = 16
"""Budget × items: logits, Adam's two, the best summary and its logits, S, α, their derivatives, what a vjp keeps."""
_ACTOR_MATRICES = 6
"""Budget × items: S, α, their derivatives, a product's temporary."""


def plan_distillation(dataset: Dataset, config: DistillConfig, *, workers: int | None = None) -> Plan:
    """The memory that `distill` will take with so many workers; None: those of the connected cluster."""
    return plan_summary(
        users=dataset.num_training_users,
        items=dataset.num_items,
        interactions=dataset.manifest.counts["train"],
        shards=dataset.num_shards,
        budget=config.budget,
        noise_rows=config.sampler.draws * min(config.sampler.groups, config.budget),
        held=min(config.batch + config.judged_users, dataset.num_training_users),
        workers=min(workers or pool_size(), config.parts),
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
    shard = COPIES * INTERACTION * interactions // max(shards, 1)
    histories = COPIES * INTERACTION * interactions * held // max(users, 1)
    scores = score_block(0, items)
    return Plan(
        f"Distilling {users:,} users into {budget:,}",
        {
            "driver": DRIVER + _COMPILED + _DRIVER_MATRICES * matrix + 2 * 4 * noise_rows * items,
            f"{workers} actors": workers * (WORKER + _ACTOR_MATRICES * matrix + scores + shard) + histories,
        },
        disk=4 * interactions,
    )
