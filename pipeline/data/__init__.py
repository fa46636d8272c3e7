"""The dataset artefact, and everything around it that needs no model.

`dataset` reads who interacted with which items. `additions` holds the interactions that users gained after their shard
was written. `blocks` deals users out to blocks that are scored at once. `catalogue` and `item_lists` find items by
id. `generate` writes a synthetic log, and `perturb` a noisy dataset.
"""

from infrec.pipeline.data.blocks import (
    USER_BLOCK,
    UserBlock,
    block_users,
    judging_threads,
    judging_users,
    score_block,
    user_blocks,
)
from infrec.pipeline.data.catalogue import known_index
from infrec.pipeline.data.dataset import (
    ITEMS,
    PARTS,
    Dataset,
    Histories,
    ShardSlice,
    by_shard,
    csr_of,
    judging_rows,
    lists_of,
    numbers,
    shard_name,
    training_lists,
)
from infrec.pipeline.data.generate import GenerateConfig, generate_log
from infrec.pipeline.data.item_lists import Offer
from infrec.pipeline.data.perturb import PerturbConfig, perturb_dataset

__all__ = [
    "ITEMS",
    "PARTS",
    "USER_BLOCK",
    "Dataset",
    "GenerateConfig",
    "Histories",
    "Offer",
    "PerturbConfig",
    "ShardSlice",
    "UserBlock",
    "block_users",
    "by_shard",
    "csr_of",
    "generate_log",
    "judging_rows",
    "judging_threads",
    "judging_users",
    "known_index",
    "lists_of",
    "numbers",
    "perturb_dataset",
    "score_block",
    "shard_name",
    "training_lists",
    "user_blocks",
]
