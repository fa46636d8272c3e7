"""A summary as a recommender: an ∞-AE that was trained only on a few synthetic (or chosen) users.

    users.parquet    synthetic_user (int32, 0 …), item_id (as in the log), weight (float32, in (0, 1]): S; and label
                     (float32): Y, unless Y is S
    items.parquet    the dataset's items; row i is item index i
    logits.arrow     budget × items float32: the logits that the summary was sampled from, for a warm start
    dual.arrow       budget × items float32: α, if it is not the α of the formula below
    history.parquet  one row for each validation while the summary was made

scores(x) = K(x, S) α with α = (K_SS + λ tr(K_SS)/m · 1)⁻¹ Y.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from jaxtyping import Float, Float32

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
"""The name of a count in the manifest: the number of users that a summary was made from."""


@dataclass(frozen=True)
class Summary:
    """The ∞-AE of a summary's synthetic users."""

    name: ClassVar[str] = "summary"

    kernel: LandmarkKernel
    """K(·, S), the kernel with the synthetic users."""
    dual: Float[np.ndarray, "budget items"]
    """The dual coefficients α."""

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        config = artefact.manifest.config
        ntk, rows = NTK(**config["ntk"]), summary_matrix(artefact)
        if DUAL in artefact.manifest.files:
            dual = read_tensor(artefact, DUAL)
        else:
            dual = solve_summary(ntk, rows, config["lambda"], labels_of(artefact))
        return cls(LandmarkKernel.of(ntk, KernelRows.of(sp.csr_array(rows))), dual)

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """Return K(x, S) α for every row x of `context`."""
        scores: np.ndarray = self.kernel(KernelRows.of(context)) @ self.dual
        return scores


def summary_matrix(artefact: Artefact) -> Float32[np.ndarray, "budget items"]:
    """Read S from `users.parquet`, as a dense matrix. Its columns are item indices."""
    return _matrix(artefact, artefact.table(USERS), "weight")


def labels_of(artefact: Artefact) -> Float32[np.ndarray, "budget items"] | None:
    """Read Y from `users.parquet`, as a dense matrix. Return None if the labels of the summary are its own rows."""
    table = artefact.table(USERS)
    return _matrix(artefact, table, "label") if "label" in table.column_names else None


def _matrix(artefact: Artefact, table: pa.Table, column: str) -> Float32[np.ndarray, "budget items"]:
    item_ids = artefact.table(ITEMS)["item_id"]
    items = pc.index_in(table["item_id"], value_set=item_ids.combine_chunks()).to_numpy()
    rows = np.zeros((artefact.manifest.counts["budget"], len(item_ids)), np.float32)
    rows[table["synthetic_user"].to_numpy(), items] = table[column].to_numpy()
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
    labels: Float32[np.ndarray, "budget items"] | None = None,
    dual: Float[np.ndarray, "budget items"] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Artefact:
    """Write a summary's tables and tensors, and publish it.

    Args:
        writer: writes the artefact, of kind SUMMARY.
        dataset: the dataset that the summary was made from.
        rows: S. Entries of 0 are not written, unless they have a label.
        method: the method that made it, such as "distill-cf".
        ntk: the kernel of its ∞-AE.
        lam: λ of its ∞-AE.
        config: the settings that it was made with.
        history: one row for each validation, with the ridge c' of solved labels, or null for own ones.
        counts: further counts for the manifest.
        logits: the logits, for a warm start.
        labels: Y, unless it is S.
        dual: α, if it is not the α of ridge regression on the summary itself.
        inputs: the fingerprints of its inputs besides the dataset.
    """
    item_table = dataset.items()
    budget, items = rows.shape
    users, columns = np.nonzero(rows if labels is None else (rows != 0) | (labels != 0))
    table = pa.table(
        {
            "synthetic_user": pa.array(users, pa.int32()),
            "item_id": item_table["item_id"].combine_chunks().take(pa.array(columns)),
            "weight": pa.array(rows[users, columns], pa.float32()),
        }
    )
    if labels is not None:
        table = table.append_column("label", pa.array(labels[users, columns], pa.float32()))
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
