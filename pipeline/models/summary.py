"""A summary as a recommender: an ∞-AE that was trained only on a few synthetic (or chosen) users.

A summary whose labels are its own rows, as in the paper, is a table of weights:

    users.parquet    synthetic_user (int32, 0 …), item_id (as in the log), weight (float32, in (0, 1]): S
    dual.arrow       budget × items float32: α, if it is not the α of the formula below

A summary with solved labels has everything in bytes. The rows of its tables are items, the most popular first:

    weights.parquet  item_id, mean (float32), step (float32), levels (a signed byte for each synthetic user):
                     S = max(mean + step · levels, 0). Items without a row weigh nothing
    factors.parquet  step (float32), levels (a signed byte for each synthetic user): row j is column j of F
    labels.parquet   item_id, levels (a signed byte for each column of F): G. Items without a row have zeros

Both have

    items.parquet    the dataset's items; row i is item index i
    history.parquet  one row for each validation while the summary was made

scores(x) = K(x, S) α with α = (K_SS + λ tr(K_SS)/m · 1)⁻¹ Y, where the labels Y are S, or F G.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from jaxtyping import Float, Float32, Int, Int8

from infrec.kernels.inner_regression import solve_summary
from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel
from infrec.kernels.levels import Levels, RoundedRows
from infrec.kernels.ntk import NTK
from infrec.pipeline.data import ITEMS, Dataset
from infrec.pipeline.storage import Artefact, ArtefactWriter, FileRecord, parquet_bytes, read_tensor, tensor_bytes

USERS = "users.parquet"
DUAL = "dual.arrow"
WEIGHTS = "weights.parquet"
FACTORS = "factors.parquet"
LABELS = "labels.parquet"
HISTORY = "history.parquet"
TRAINING_USERS = "training_users"
"""The name of a count in the manifest: the number of users that a summary was made from."""

_COMPRESSION = 19
"""The level of zstd for levels: they are written once, and few."""


class LabelledRows(NamedTuple):
    """Synthetic users with solved labels, in levels."""

    items: Int[np.ndarray, " weighted"]
    """The items that have weights, ascending."""
    weights: RoundedRows
    """S of these items."""
    factors: Levels
    """F: budget × rank."""
    labels: Int8[np.ndarray, "rank items"]
    """G, of all items."""


@dataclass(frozen=True)
class Summary:
    """The ∞-AE of a summary's synthetic users."""

    name: ClassVar[str] = "summary"

    kernel: LandmarkKernel
    """K(·, S), the kernel with the synthetic users."""
    dual: Float32[np.ndarray, "budget columns"]
    """The dual coefficients α; with solved labels M⁻¹ F."""
    items: Int[np.ndarray, " weighted"] | None = None
    """With solved labels: the items that S consists of."""
    labels: Float32[np.ndarray, "columns items"] | None = None
    """With solved labels: G."""

    @classmethod
    def load(cls, artefact: Artefact) -> Self:
        config = artefact.manifest.config
        ntk = NTK(**config["ntk"])
        found = labelled_rows(artefact)
        if found:
            rows = found.weights.matrix
            dual = solve_summary(ntk, rows, config["lambda"], found.factors.matrix)
            kernel = LandmarkKernel.of(ntk, KernelRows.of(sp.csr_array(rows)))
            return cls(kernel, dual, found.items, found.labels.astype(np.float32))
        rows = summary_matrix(artefact)
        if DUAL in artefact.manifest.files:
            dual = read_tensor(artefact, DUAL)
        else:
            dual = solve_summary(ntk, rows, config["lambda"])
        return cls(LandmarkKernel.of(ntk, KernelRows.of(sp.csr_array(rows))), dual)

    def scores(self, context: sp.csr_array) -> Float[np.ndarray, "users items"]:
        """Return K(x, S) α for every row x of `context`."""
        seen = context if self.items is None else context[:, self.items]
        scores: np.ndarray = self.kernel(KernelRows.of(seen)) @ self.dual
        return scores if self.labels is None else scores @ self.labels


def summary_matrix(artefact: Artefact) -> Float32[np.ndarray, "budget items"]:
    """Read S as a dense matrix of all items."""
    rows = np.zeros((artefact.manifest.counts["budget"], artefact.manifest.counts["items"]), np.float32)
    found = labelled_rows(artefact)
    if found:
        rows[:, found.items] = found.weights.matrix
        return rows
    table = artefact.table(USERS)
    rows[table["synthetic_user"].to_numpy(), _indices(artefact, table)] = table["weight"].to_numpy()
    return rows


def labels_of(artefact: Artefact) -> Float32[np.ndarray, "budget items"] | None:
    """Read Y as a dense matrix. Return None if the labels of the summary are its own rows."""
    found = labelled_rows(artefact)
    return found.factors.matrix @ found.labels.astype(np.float32) if found else None


def labelled_rows(artefact: Artefact) -> LabelledRows | None:
    """Read the synthetic users of a summary with solved labels. Return None if the labels are its own rows."""
    if LABELS not in artefact.manifest.files:
        return None
    weights, factors, labels = (artefact.table(name) for name in (WEIGHTS, FACTORS, LABELS))
    items = _indices(artefact, weights)
    order = np.argsort(items)
    rank = len(factors)
    full = np.zeros((artefact.manifest.counts["items"], rank), np.int8)
    full[_indices(artefact, labels)] = _bytes(labels, rank)
    return LabelledRows(
        items[order],
        RoundedRows(
            weights["mean"].to_numpy()[order],
            np.ascontiguousarray(_bytes(weights, artefact.manifest.counts["budget"])[order].T),
            weights["step"].to_numpy()[order],
        ),
        Levels(_bytes(factors, artefact.manifest.counts["budget"]).T, factors["step"].to_numpy()),
        full.T,
    )


def _indices(artefact: Artefact, table: pa.Table) -> Int[np.ndarray, " rows"]:
    """Return the item index of each row of a table with item ids."""
    known = artefact.table(ITEMS)["item_id"].combine_chunks()
    indices: np.ndarray = pc.index_in(table["item_id"], value_set=known).to_numpy()
    return indices


def _bytes(table: pa.Table, width: int) -> Int8[np.ndarray, "rows width"]:
    """Return the levels of a table: each row has `width` of them."""
    column = table["levels"].combine_chunks()
    return np.frombuffer(column.buffers()[1], np.int8, len(column) * width).reshape(-1, width)


def _levels(levels: Int8[np.ndarray, "rows width"]) -> pa.Array:
    """Return rows of levels as a column of byte strings."""
    rows, width = levels.shape
    content = pa.py_buffer(np.ascontiguousarray(levels))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), rows, [None, content])


def publish_labelled_summary(
    writer: ArtefactWriter, dataset: Dataset, rows: LabelledRows, **described: Any
) -> Artefact:
    """Write the tables of a summary with solved labels, and publish it.

    Args:
        writer: writes the artefact, of kind SUMMARY.
        dataset: the dataset that the summary was made from.
        rows: the synthetic users.
        described: what `publish_summary` has after its `rows`.
    """
    item_table = dataset.items()
    ids, counts = item_table["item_id"].combine_chunks(), item_table["train_count"].to_numpy()
    first = np.argsort(-counts[rows.items], kind="stable")
    weights = pa.table(
        {
            "item_id": ids.take(pa.array(rows.items[first])),
            "mean": rows.weights.mean[first],
            "step": rows.weights.steps[first],
            "levels": _levels(rows.weights.levels.T[first]),
        }
    )
    factors = pa.table({"step": rows.factors.steps, "levels": _levels(rows.factors.levels.T)})
    labelled = np.flatnonzero(rows.labels.any(axis=0))
    labelled = labelled[np.argsort(-counts[labelled], kind="stable")]
    labels = pa.table({"item_id": ids.take(pa.array(labelled)), "levels": _levels(rows.labels.T[labelled])})
    tables = {WEIGHTS: weights, FACTORS: factors, LABELS: labels}
    files = {
        name: writer.write(name, parquet_bytes(table, dictionaries=["step"], compression_level=_COMPRESSION))
        for name, table in tables.items()
    }
    budget, columns = rows.weights.levels.shape
    counted = {"budget": budget, "rows": budget * columns, "weighted_items": columns, "rank": len(rows.labels)}
    return _published(writer, dataset, files, counted, **described)


def publish_summary(
    writer: ArtefactWriter,
    dataset: Dataset,
    rows: Float[np.ndarray, "budget items"],
    *,
    dual: Float[np.ndarray, "budget items"] | None = None,
    **described: Any,
) -> Artefact:
    """Write the tables and tensors of a summary whose labels are its own rows, and publish it.

    Args:
        writer: writes the artefact, of kind SUMMARY.
        dataset: the dataset that the summary was made from.
        rows: S. Entries of 0 are not written.
        dual: α, if it is not the α of ridge regression on the summary itself.
        described: `method`, the method that made it, such as "distill-cf"; `ntk`, the kernel of its ∞-AE, and `lam`,
            its λ; `config`, the settings that it was made with; `history`, a table with a row for each validation; and
            perhaps `counts`, further counts for the manifest, and `inputs`, fingerprints of other inputs than the
            dataset.
    """
    users, columns = np.nonzero(rows)
    table = pa.table(
        {
            "synthetic_user": pa.array(users, pa.int32()),
            "item_id": dataset.items()["item_id"].combine_chunks().take(pa.array(columns)),
            "weight": pa.array(rows[users, columns], pa.float32()),
        }
    )
    files = {USERS: writer.write_table(USERS, table)}
    if dual is not None:
        files[DUAL] = writer.write(DUAL, tensor_bytes(dual))
    return _published(writer, dataset, files, {"budget": len(rows), "rows": len(users)}, **described)


def _published(
    writer: ArtefactWriter,
    dataset: Dataset,
    files: Mapping[str, FileRecord],
    counted: Mapping[str, int],
    *,
    method: str,
    ntk: NTK,
    lam: float,
    config: Mapping[str, Any],
    history: pa.Table,
    counts: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Artefact:
    """Write what every summary has, and publish it."""
    return writer.publish(
        config={"model": Summary.name, "method": method, "options": config, "ntk": asdict(ntk), "lambda": lam},
        inputs={"dataset": dataset.manifest.fingerprint(), **(inputs or {})},
        counts={
            **counted,
            "items": dataset.num_items,
            TRAINING_USERS: dataset.num_training_users,
            **(counts or {}),
        },
        files={
            ITEMS: writer.write_table(ITEMS, dataset.items()),
            HISTORY: writer.write_table(HISTORY, history),
            **files,
        },
    )


def summary_bytes(artefact: Artefact) -> int:
    """Return the bytes of the synthetic users and their labels: all files but the items and the history."""
    files = artefact.manifest.files
    return sum(record.size for name, record in files.items() if name not in (ITEMS, HISTORY))
