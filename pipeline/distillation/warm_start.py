"""A warm start: a distillation begins with the logits of an earlier summary. Items are matched by id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float32

from infrec.pipeline.data import ITEMS, Dataset
from infrec.pipeline.models import LOGITS
from infrec.pipeline.storage import Artefact, InputError, read_tensor


@dataclass(frozen=True)
class WarmStart:
    """The logits that a warm start begins with."""

    logits: Float32[np.ndarray, "budget items"]
    counts: Mapping[str, int]
    """The number of items that only the dataset has, and the number of items that only the summary has."""
    inputs: Mapping[str, str]

    @classmethod
    def of(cls, summary: Artefact, dataset: Dataset, budget: int) -> Self:
        """Return the logits of `summary` for the items of `dataset`.

        A new item starts with a logit of 0, like an item that an initial user does not have. Raises `InputError` if the
        summary has no logits, another budget, or item ids of another type.
        """
        if LOGITS not in summary.manifest.files:
            method = summary.manifest.config["method"]
            raise InputError(
                f"{summary.location} has no logits to start from: the method {method} made it.", "warm_start"
            )
        before = read_tensor(summary, LOGITS)
        if len(before) != budget:
            raise InputError(
                f"{summary.location} has a budget of {len(before):,}, the new one has {budget:,}.",
                "warm_start",
                "budget",
            )
        known, ids = summary.table(ITEMS)["item_id"], dataset.items()["item_id"]
        if known.type != ids.type:
            raise InputError(f"{summary.location} has item ids of type {known.type}, the dataset of {ids.type}.")
        position = pc.index_in(ids, value_set=known.combine_chunks()).combine_chunks()
        found = position.is_valid().to_numpy(zero_copy_only=False)
        logits = np.zeros((budget, len(ids)), np.float32)
        logits[:, found] = before[:, position.drop_null().to_numpy()]
        counts = {"new_items": int((~found).sum()), "items_gone": len(known) - int(found.sum())}
        return cls(logits, counts, {"warm_start": summary.manifest.fingerprint()})
