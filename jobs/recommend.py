"""`infrec recommend`: the best unseen items for every user of a dataset, as Parquet."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from jobs import console
from jobs.options import Address, Cpus, Debug, Json, Overwrite
from pipeline.artefact import ArtefactWriter, Kind
from pipeline.dataset import Dataset
from pipeline.scoring import open_model
from pipeline.scoring import recommend as recommend_all
from pipeline.session import ray_session
from pipeline.workers import Pool


def recommend(
    model: Annotated[str, typer.Argument(help="A model made by `infrec fit`.")],
    data: Annotated[str, typer.Option(help="The dataset with the users' histories.")],
    out: Annotated[str, typer.Option(help="Where the recommendations go: user_id, rank, item_id, score.")],
    k: Annotated[int, typer.Option(help="Items a user.")] = 100,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
) -> None:
    """Write the k best unseen items of every user as Parquet files."""
    started = time.perf_counter()
    dataset = Dataset.open(data)
    fingerprint = open_model(model, dataset).manifest.fingerprint()
    purpose = {"model": fingerprint, "data": dataset.manifest.fingerprint(), "k": k}
    writer = ArtefactWriter(out, Kind.RECOMMENDATIONS, purpose=purpose, overwrite=overwrite)
    with writer, ray_session(address=address, cpus=cpus), Pool() as pool, console.progress() as report:
        table = recommend_all(model, dataset, writer, pool, k=k, report=report)
    counts, seconds = table.manifest.counts, time.perf_counter() - started
    if as_json:
        console.show_json({"out": str(table.location), **counts, "seconds": round(seconds, 2)})
        return
    console.result(f"{table.location}: {counts['rows']:,} rows for {counts['users']:,} users ({seconds:.1f} s)")
