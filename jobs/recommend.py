"""`infrec recommend`: write the best items for every user of a dataset, or of raw histories, as Parquet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from infrec.jobs import console
from infrec.jobs.options import Address, Cpus, Debug, Gpus, Json, Overwrite
from infrec.pipeline.cluster import open_pool, session
from infrec.pipeline.data import Dataset
from infrec.pipeline.ingest import Format, find_files, ingest_histories, ingest_work, rows_in
from infrec.pipeline.models import open_model
from infrec.pipeline.serving import RecommendConfig, scoring_work
from infrec.pipeline.serving import recommend as recommend_all
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, Kind

_ROWS_A_USER = 10  # of histories that nobody has read yet


def recommend(
    model: Annotated[str, typer.Argument(help="A model made by `infrec fit`, or a summary.")],
    out: Annotated[str, typer.Option(help="Where the recommendations go: user_id, rank, item_id, score.")],
    data: Annotated[str | None, typer.Option(help="The dataset with the users' histories.")] = None,
    histories: Annotated[
        list[str] | None,
        typer.Option(help="Instead of --data: logs with the histories, of any users. As in ingest; may be repeated."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Column of user ids in --histories. Default: user_id.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of item ids in --histories. Default: item_id.")] = None,
    k: Annotated[int, typer.Option(help="Items a user.")] = 100,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Recommend items of the user's history, too.")] = False,
    allow: Annotated[
        str | None, typer.Option(help="Recommend only these: Parquet or CSV of one column, or an item id a line.")
    ] = None,
    deny: Annotated[
        str | None, typer.Option(help="Never recommend these, allowed or not. Files as of --allow.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Write the k best unseen items of every user as Parquet files."""
    started = time.perf_counter()
    if (data is None) == (not histories):
        raise InputError("Say whose histories they are: either --data or --histories.")
    if data is not None and (user or item):
        raise InputError("--user and --item go with --histories: a dataset has its own columns.")
    columns = {"user": user or "user_id", "item": item or "item_id"}
    config = RecommendConfig(k=k, keep_seen=keep_seen, allow=allow, deny=deny)
    dataset = None if data is None else Dataset.open(data)
    logs = find_files(histories or [], Format.AUTO)
    opened = open_model(model, dataset) if dataset else Artefact.open(model, Kind.MODEL, Kind.SUMMARY)
    stamps = {str(file.location): file.stamp for file in logs}
    purpose = {
        "model": opened.manifest.fingerprint(),
        "histories": dataset.manifest.fingerprint() if dataset else [columns, stamps],
        "config": asdict(config),
        "offer": config.offer(opened).fingerprint,
    }
    if dataset:
        work = scoring_work(opened, dataset.num_users)
    else:
        rows = rows_in(logs)
        work = ingest_work(rows) + scoring_work(opened, rows // _ROWS_A_USER)
    writer = ArtefactWriter(out, Kind.RECOMMENDATIONS, purpose=purpose, overwrite=overwrite)
    with writer, session(work, address=address, cpus=cpus, gpus=gpus), console.progress() as report:
        dataset = dataset or ingest_histories(logs, model, writer, **columns, report=report)
        with open_pool() as pool:
            # Take the model that was opened above: by now its state may have another one
            table = recommend_all(opened.location, dataset, writer, pool, config, report=report)
    counts, seconds = table.manifest.counts, time.perf_counter() - started
    if as_json:
        console.show_json({"out": str(table.location), **counts, "seconds": round(seconds, 2)})
        return
    console.result(f"{table.location}: {counts['rows']:,} rows for {counts['users']:,} users ({seconds:.1f} s)")
    for line in _ignored(counts):
        console.result(f"  {line}")


def _ignored(counts: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each kind of input that is not in the recommendations."""
    dropped = ", ".join(f"{rows:,} {reason}" for reason, rows in counts.get("dropped", {}).items())
    if dropped:
        yield f"rows of the histories that were dropped: {dropped}"
    if users := counts.get("users_left_out"):
        yield f"users left out, who have no item that the model knows: {users:,}"
    if ids := counts["unknown_listed_items"]:
        yield f"listed items that the model does not know: {ids:,}"
