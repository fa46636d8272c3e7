"""A summary as a recommender: an ∞-AE that was trained on a few synthetic (or chosen) users only.

    users.parquet    synthetic_user (int32, 0 …), item_id (as in the log), weight (float32, in (0, 1])
    items.parquet    the dataset's items; row i is item index i
    logits.arrow     budget × items float32: what the summary was sampled from, for a warm start
    dual.arrow       budget × items float32: α, where it is not that of the formula below
    history.parquet  the validations on the way

scores(x) = K(x, S) α with α = (K_SS + λ tr(K_SS)/m · 1)⁻¹ S.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from jaxtyping import Float

from infrec.kernels.inner_regression import solve_summary
from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel
from infrec.kernels.ntk import NTK
from infrec.pipeline.data import ITEMS, Dataset
from infrec.pipeline.storage import Artefact, ArtefactWriter, FileRecord, read_tensor, tensor_bytes

USERS = "users.parquet"
LOGITS = "logits.arrow"
DUAL = "dual.arrow"
HISTORY = "history.parquet"
TRAINING_USERS = "training_users"
"""The count of users that a summary was made from."""


@dataclass(frozen=True)
class Summary:
    """The ∞-AE of a summary."""

    name: ClassVar[str] = "summary"

    kernel: LandmarkKernel
    """Of the synthetic users."""
    dual: Float[np.ndarray, "budget items"]
    """α."""

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        config = artefact.manifest.config
        ntk, rows = NTK(**config["ntk"]), summary_matrix(artefact)
        if DUAL in artefact.manifest.files:
            dual = read_tensor(artefact, DUAL)
        else:
            dual = solve_summary(ntk, rows, config["lambda"])
        return cls(LandmarkKernel.of(ntk, KernelRows.of(sp.csr_array(rows))), dual)

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """K(x, S) α for every row x of `context`."""
        scores: np.ndarray = self.kernel(KernelRows.of(context)) @ self.dual
        return scores


def summary_matrix(artefact: Artefact) -> Float[np.ndarray, "budget items"]:
    """S, dense, from `users.parquet`: columns are item indices."""
    item_ids = artefact.table(ITEMS)["item_id"]
    table = artefact.table(USERS)
    items = pc.index_in(table["item_id"], value_set=item_ids.combine_chunks()).to_numpy()
    rows = np.zeros((artefact.manifest.counts["budget"], len(item_ids)), np.float32)
    rows[table["synthetic_user"].to_numpy(), items] = table["weight"].to_numpy()
    return rows


def publish_summary(
    writer: ArtefactWriter,
    dataset: Dataset,
    rows: Float[np.ndarray, "budget items"],
    *,
    method: str,
    ntk: NTK,
    lam: float,
    config: Mapping[str, Any],
    history: pa.Table,
    counts: Mapping[str, Any] | None = None,
    logits: Float[np.ndarray, "budget items"] | None = None,
    dual: Float[np.ndarray, "budget items"] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Artefact:
    """Write a summary's tables and publish it.

    Args:
        writer: of kind SUMMARY.
        dataset: what it was made from.
        rows: S; entries of 0 are not written.
        method: how it was made, such as "distill-cf".
        ntk: the kernel of its ∞-AE.
        lam: λ of its ∞-AE.
        config: the options that made it.
        history: one row a validation.
        counts: what else was counted.
        logits: for a warm start.
        dual: α, where it is not that of ridge regression on the summary itself.
        inputs: fingerprints of what it was made from besides the dataset.
    """
    item_table = dataset.items()
    budget, items = rows.shape
    users, columns = np.nonzero(rows)
    table = pa.table(
        {
            "synthetic_user": pa.array(users, pa.int32()),
            "item_id": item_table["item_id"].combine_chunks().take(pa.array(columns)),
            "weight": pa.array(rows[users, columns], pa.float32()),
        }
    )
    files: dict[str, FileRecord] = {
        ITEMS: writer.write_table(ITEMS, item_table),
        USERS: writer.write_table(USERS, table),
        HISTORY: writer.write_table(HISTORY, history),
    }
    for name, tensor in ((LOGITS, logits), (DUAL, dual)):
        if tensor is not None:
            files[name] = writer.write(name, tensor_bytes(tensor))
    return writer.publish(
        config={"model": Summary.name, "method": method, "options": config, "ntk": asdict(ntk), "lambda": lam},
        inputs={"dataset": dataset.manifest.fingerprint(), **(inputs or {})},
        counts={
            "budget": budget,
            "items": items,
            "rows": len(users),
            TRAINING_USERS: dataset.num_training_users,
            **(counts or {}),
        },
        files=files,
    )
