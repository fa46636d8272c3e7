"""A warm start: a distillation begins with the weights of an earlier summary. Items are matched by id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int

from infrec.pipeline.data import ITEMS, Dataset
from infrec.pipeline.distillation.config import DistillConfig, Method
from infrec.pipeline.models import labelled_rows, summary_matrix
from infrec.pipeline.storage import Artefact, InputError

_LEAST = 0.1
"""The least weight that counts, relative to the mean of its row. The logit of none would be −∞."""


def logits_near(
    weights: Float32[np.ndarray, "budget items"], temperature: float
) -> Float32[np.ndarray, "budget items"]:
    """Return the logits from which about these weights are drawn.

    The sampler draws weights near e^(L/τ), up to a factor for each row. The median of each row is 0.
    """
    least = _LEAST * weights.mean(axis=1, keepdims=True)
    logits: np.ndarray = np.float32(temperature) * np.log(np.maximum(weights, least))
    logits -= np.median(logits, axis=1, keepdims=True)
    return logits


@dataclass(frozen=True)
class WarmStart:
    """The logits that a warm start begins with."""

    logits: Float32[np.ndarray, "budget weighted"]
    counts: Mapping[str, int]
    """The number of items that only the dataset has, and the number of items that only the summary has."""
    inputs: Mapping[str, str]

    @classmethod
    def of(
        cls, summary: Artefact, dataset: Dataset, items: Int[np.ndarray, " weighted"], config: DistillConfig
    ) -> Self:
        """Return the logits from which about the weights of `summary` are drawn, for the weighted items of `dataset`.

        An item without a weight starts with a logit of 0, which is the median of each row. Raises `InputError` if
        Distill-CF did not make the summary, or if it has another budget, or item ids of another type.
        """
        method = summary.manifest.config["method"]
        if method != Method.DISTILL_CF:
            raise InputError(
                f"{summary.location} is no summary to start from: the method {method} made it.", "warm_start"
            )
        budget = summary.manifest.counts["budget"]
        if budget != config.budget:
            raise InputError(
                f"{summary.location} has a budget of {budget:,}, the new one has {config.budget:,}.",
                "warm_start",
                "budget",
            )
        known, ids = summary.table(ITEMS)["item_id"].combine_chunks(), dataset.items()["item_id"].combine_chunks()
        if known.type != ids.type:
            raise InputError(f"{summary.location} has item ids of type {known.type}, the dataset of {ids.type}.")
        rows = labelled_rows(summary)
        weights = rows.weights.matrix if rows else summary_matrix(summary)
        weighed = known.take(pa.array(rows.items)) if rows else known
        before = logits_near(weights, config.sampler.temperature)
        position = pc.index_in(ids.take(pa.array(items)), value_set=weighed)
        found = position.is_valid().to_numpy(zero_copy_only=False)
        logits = np.zeros((budget, len(items)), np.float32)
        logits[:, found] = before[:, position.drop_null().to_numpy()]
        both = int(pc.sum(pc.is_in(ids, value_set=known)).as_py() or 0)
        counts = {"new_items": len(ids) - both, "items_gone": len(known) - both}
        return cls(logits, counts, {"warm_start": summary.manifest.fingerprint()})
