"""`infrec export`: write a summary as one file that other programs read."""

from __future__ import annotations

import time
from typing import Annotated

import scipy.sparse as sp
import typer

from infrec.jobs import console
from infrec.jobs.options import Debug, Json, Overwrite, Seed
from infrec.kernels.gumbel_top_k import Choice, interactions
from infrec.pipeline.data import ITEMS
from infrec.pipeline.models import labels_of, summary_matrix
from infrec.pipeline.serving import ExportFormat, file_content, usual_length
from infrec.pipeline.storage import Artefact, InputError, Kind, Location


def export(
    summary: Annotated[str, typer.Argument(help="A summary made by `infrec distill`.")],
    out: Annotated[str, typer.Option(help="The file that is written.")],
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format", help="inter: RecBole's atomic file. npz: for scipy.sparse.load_npz, with an array item_ids."
        ),
    ] = ExportFormat.PARQUET,
    discrete: Annotated[
        bool, typer.Option("--interactions", help="Items without weights, for learners that take none.")
    ] = False,
    choose: Annotated[
        Choice | None,
        typer.Option(help="Interactions: the items of the greatest weight (the default), or drawn by weight."),
    ] = None,
    per_user: Annotated[
        int | None,
        typer.Option(help="Interactions of a synthetic user. Default: the mean of the users it was made from."),
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a summary as Parquet, CSV, RecBole's .inter or a SciPy matrix: synthetic user, item, weight, label."""
    started = time.perf_counter()
    for option, value in (("--choose", choose), ("--per-user", per_user)):
        if value is not None and not discrete:
            raise InputError(f"{option} goes with --interactions.")
    source, target = Artefact.open(summary, Kind.SUMMARY), _target(out, overwrite)
    weights = summary_matrix(source)
    matrix, labels = sp.csr_array(weights), labels_of(source)
    if discrete:
        length, items = usual_length(source) if per_user is None else per_user, weights.shape[1]
        if not 1 <= length <= items:
            raise InputError(f"--per-user must lie in 1 … {items:,}, the number of items; it is {length:,}.")
        matrix = interactions(weights, per_user=length, choice=choose or Choice.TOP, seed=seed)
        labels = None
    item_ids = source.table(ITEMS)["item_id"].combine_chunks()
    content, rows = file_content(matrix, item_ids, form, with_weights=not discrete, labels=labels)
    target.write(content)
    budget, seconds = matrix.shape[0], time.perf_counter() - started
    if as_json:
        result = {"out": str(target), "format": form, "rows": rows, "synthetic_users": budget}
        console.show_json({**result, "seconds": round(seconds, 2)})
        return
    console.result(f"{target}: {rows:,} rows for {budget:,} synthetic users ({seconds:.1f} s)")


def _target(out: str, overwrite: bool) -> Location:
    target = Location.of(out)
    if target.is_directory():
        raise InputError(f"{target} is a directory: --out must name a file.")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists: choose another --out, or say --overwrite to replace it.")
    return target
