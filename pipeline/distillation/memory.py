"""The memory that a distillation takes."""

from __future__ import annotations

from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, WORKER, Plan, pool_size
from infrec.pipeline.data import Dataset, score_block
from infrec.pipeline.distillation.config import DistillConfig

_COMPILED = 100_000_000
"""Bytes that remain in use after the way through sampler, kernel and solve, and back, has been compiled."""
_DRIVER_MATRICES = 16
"""Budget × items matrices in the driver: the logits, Adam's two, the best summary and its logits, S, α, their
derivatives, and those that a vjp keeps."""
_ACTOR_MATRICES = 6
"""Budget × items matrices in an actor: S, α, their derivatives, and the temporary of a product."""


def plan_distillation(dataset: Dataset, config: DistillConfig, *, workers: int | None = None) -> Plan:
    """Return the memory that `distill` will take with so many workers. None means those of the connected cluster."""
    config = config.for_items(dataset.num_items)
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
    """Return the memory of Distill-CF: a few budget × items matrices in a process, and a block of scores in an actor.

    All train interactions are in files. Memory holds one shard for each actor, and the histories of the `held` users of
    batches and validation.
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
