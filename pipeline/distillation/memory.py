"""The memory that a distillation takes."""

from __future__ import annotations

from infrec.pipeline.cluster import COPIES, DRIVER, INTERACTION, WORKER, Plan, pool_size
from infrec.pipeline.data import Dataset, score_block
from infrec.pipeline.distillation.config import DistillConfig, Labels
from infrec.pipeline.distillation.initial import weighted_items

_COMPILED = 100_000_000
"""Bytes that remain in use after the way through sampler, kernel and solve, and back, has been compiled."""
_DRIVER_MATRICES = 15
"""Budget × weighted items matrices in the driver while it learns: the logits, Adam's two, the best summary, S, α, their
derivatives, and those that a vjp keeps."""
_ACTOR_MATRICES = 6
"""The same in an actor: S, α, their derivatives, and the temporary of a product."""
_LABEL_MATRICES = 4
"""Budget × items matrices of float32 while labels are solved: the targets in float64, a share of them, and factors."""


def plan_distillation(dataset: Dataset, config: DistillConfig, *, workers: int | None = None) -> Plan:
    """Return the memory that `distill` will take with so many workers. None means those of the connected cluster."""
    weighted = len(weighted_items(dataset, config))
    config = config.for_items(weighted)
    return plan_summary(
        users=dataset.num_training_users,
        items=dataset.num_items,
        weighted=weighted,
        solved=config.labels == Labels.SOLVED,
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
    weighted: int,
    solved: bool,
    interactions: int,
    shards: int,
    budget: int,
    noise_rows: int,
    held: int,
    workers: int,
) -> Plan:
    """Return the memory of Distill-CF: a few budget × items matrices in a process, and a block of scores in an actor.

    Only `weighted` of the items have weights. If labels are `solved`, all have labels.

    All train interactions are in files. Memory holds one shard for each actor, and the histories of the `held` users of
    batches and validation.
    """
    matrix, labels = 4 * budget * weighted, 4 * budget * items if solved else 0
    shard = COPIES * INTERACTION * interactions // max(shards, 1)
    histories = COPIES * INTERACTION * interactions * held // max(users, 1)
    scores = score_block(0, items)
    return Plan(
        f"Distilling {users:,} users into {budget:,}",
        {
            "driver": DRIVER
            + _COMPILED
            + max(_DRIVER_MATRICES * matrix + 2 * 4 * noise_rows * weighted, _LABEL_MATRICES * labels),
            f"{workers} actors": workers
            * (WORKER + max(_ACTOR_MATRICES * matrix + scores, _LABEL_MATRICES * labels) + shard)
            + histories,
        },
        disk=4 * interactions,
    )
