"""A summary as one file for other programs: rows of (synthetic_user, item_id, weight), with a label if it is solved.

    parquet  the rows as they are
    csv      the same rows, with a header
    inter    RecBole's atomic file: tab-separated, user_id:token, item_id:token, rating:float; without labels
    npz      the matrix, synthetic users × items, for `scipy.sparse.load_npz`; the same file has an array item_ids:
             column j is item_ids[j], and an array labels, synthetic users × items

If the synthetic users have interactions without weights, the weights and labels are left out and the matrix is binary.
"""

from __future__ import annotations

import io
import zipfile
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv
import scipy.sparse as sp
from jaxtyping import Float32

from infrec.pipeline.data import ITEMS
from infrec.pipeline.models import TRAINING_USERS
from infrec.pipeline.storage import Artefact, InputError, parquet_bytes


class ExportFormat(StrEnum):
    """The format of the file."""

    PARQUET = "parquet"
    CSV = "csv"
    INTER = "inter"
    NPZ = "npz"


def file_content(
    matrix: sp.csr_array,
    item_ids: pa.Array,
    form: ExportFormat,
    *,
    with_weights: bool,
    labels: Float32[np.ndarray, "synthetic_users items"] | None = None,
) -> tuple[pa.Buffer, int]:
    """Return the bytes of a file that holds the matrix (CSR, synthetic users × items), and its labels if there are any.

    The second result is the number of rows of the file; in the sparse format, of entries of the matrix. The rows are
    sorted by user, then as in the catalogue. Raises `InputError` if an item id cannot be written to a tab-separated
    file.
    """
    if form == ExportFormat.NPZ:
        return _sparse_file(matrix, item_ids, labels), matrix.nnz
    if form == ExportFormat.INTER:
        labels = None
    rows, columns = matrix.nonzero() if labels is None else np.nonzero((matrix.toarray() != 0) | (labels != 0))
    table = pa.table({"synthetic_user": pa.array(rows, pa.int32()), "item_id": item_ids.take(pa.array(columns))})
    if with_weights:
        table = table.append_column("weight", pa.array(matrix[rows, columns], pa.float32()))
    if labels is not None:
        table = table.append_column("label", pa.array(labels[rows, columns], pa.float32()))
    if form == ExportFormat.PARQUET:
        return parquet_bytes(table), len(table)
    if form == ExportFormat.INTER:
        return _atomic_file(table), len(table)
    sink = pa.BufferOutputStream()
    pv.write_csv(table, sink)
    return sink.getvalue(), len(table)


def usual_length(summary: Artefact) -> int:
    """Return the mean number of train interactions of the users that the summary was made from.

    The mean is rounded, and at least 1. Raises `InputError` if the summary does not say how many users these were.
    """
    users = summary.manifest.counts.get(TRAINING_USERS)
    if not users:
        raise InputError(
            f"{summary.location} does not say how many users it was made from: give the interactions per user.",
            "per_user",
        )
    return max(1, round(int(np.sum(summary.table(ITEMS)["train_count"].to_numpy())) / int(users)))


def _atomic_file(table: pa.Table) -> pa.Buffer:
    names = ("user_id:token", "item_id:token", "rating:float")[: table.num_columns]
    sink = pa.BufferOutputStream()
    sink.write(("\t".join(names) + "\n").encode())  # Arrow would put the names into quotes
    try:
        pv.write_csv(table, sink, pv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none"))
    except pa.ArrowInvalid as error:
        raise InputError(
            "An item id has a tab, a quote or a line break, which the format inter cannot say.", "format"
        ) from error
    return sink.getvalue()


def _sparse_file(
    matrix: sp.csr_array, item_ids: pa.Array, labels: Float32[np.ndarray, "synthetic_users items"] | None
) -> pa.Buffer:
    content = io.BytesIO()
    # Use the older of SciPy's two classes: `implicit` and other learners still ask for it by name
    sp.save_npz(content, sp.csr_matrix(matrix))
    ids = item_ids.to_numpy(zero_copy_only=False)
    # Write strings as text of a fixed width: an array of objects would be a pickle
    arrays = {"item_ids": ids.astype(str) if ids.dtype == object else ids}
    if labels is not None:
        arrays["labels"] = labels
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return pa.py_buffer(content.getvalue())
