"""`infrec ingest`: turn interaction logs into a dataset."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from infrec.jobs.console import progress, show_json, show_table
from infrec.jobs.options import Address, Cpus, Debug, Json, Overwrite, Seed
from infrec.pipeline.cluster import session
from infrec.pipeline.ingest import Format, IngestConfig, OnBadFile, Split, find_files, ingest_work, rows_in
from infrec.pipeline.ingest import ingest as ingest_logs

Logs = Annotated[
    list[str],
    typer.Argument(help="Files, directories, globs or hive-partitioned trees; local, s3:// or gs://."),
]


def ingest(
    logs: Logs,
    out: Annotated[str, typer.Option(help="Where the dataset goes.")],
    format: Annotated[Format, typer.Option(help="Format of the logs. auto: by suffix.")] = Format.AUTO,
    user: Annotated[str, typer.Option(help="Column of user ids.")] = "user_id",
    item: Annotated[str, typer.Option(help="Column of item ids.")] = "item_id",
    rating: Annotated[str | None, typer.Option(help="Column of ratings. Default: `rating`, if there is one.")] = None,
    timestamp: Annotated[str, typer.Option(help="Column of times.")] = "timestamp",
    split_column: Annotated[str, typer.Option(help="Column that --split column reads.")] = "split",
    threshold: Annotated[
        float | None, typer.Option(help="Drop interactions that are rated lower. Default: keep all.")
    ] = None,
    min_user_interactions: Annotated[int, typer.Option(help="Drop users with fewer interactions.")] = 1,
    k_core: Annotated[int, typer.Option(help="Drop users and items with fewer interactions, until none is left.")] = 1,
    split: Annotated[
        Split,
        typer.Option(help="random: 80/10/10 of each user. users: whole users held out. stable: for logs that grow."),
    ] = Split.RANDOM,
    validation_from: Annotated[
        str | None, typer.Option(help="Time at which validation begins. Default: after 80 %.")
    ] = None,
    test_from: Annotated[str | None, typer.Option(help="Time at which test begins. Default: after 90 %.")] = None,
    since: Annotated[str | None, typer.Option(help="Drop rows of an earlier time.")] = None,
    until: Annotated[str | None, typer.Option(help="Drop rows of this time or a later one.")] = None,
    seed: Seed = 0,
    on_bad_file: Annotated[
        OnBadFile, typer.Option(help="What to do about files that are not whole.")
    ] = OnBadFile.ERROR,
    items_from: Annotated[
        str | None, typer.Option(help="Earlier dataset of this log, or a model of it, whose items keep their indices.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
) -> None:
    """Turn interaction logs into a dataset: sharded user histories, split into train, validation and test."""
    config = IngestConfig(
        format=format,
        user=user,
        item=item,
        rating=rating,
        timestamp=timestamp,
        split_column=split_column,
        threshold=threshold,
        min_user_interactions=min_user_interactions,
        k_core=k_core,
        split=split,
        validation_from=validation_from,
        test_from=test_from,
        since=since,
        until=until,
        seed=seed,
        on_bad_file=on_bad_file,
        items_from=items_from,
    )
    found = find_files(logs, format)
    with session(ingest_work(rows_in(found)), address=address, cpus=cpus), progress() as report:
        started = time.perf_counter()
        dataset = ingest_logs(found, out, config, overwrite=overwrite, report=report)
        seconds = time.perf_counter() - started
    counts = dataset.manifest.counts
    if json:
        show_json({"dataset": str(dataset.artefact.location), **counts, "seconds": seconds})
        return
    show_table(f"dataset {dataset.artefact.location}", ("", "count"), _summary(counts, seconds))


def _summary(counts: Mapping[str, Any], seconds: float) -> list[tuple[str, str]]:
    """Return the lines of the table: what was read, what was dropped and why, and what the dataset has now."""
    lines = {
        "rows read": counts["rows"],
        **{f"  dropped: {reason}": rows for reason, rows in counts["dropped"].items()},
        "bad files passed over": len(counts["bad_files"]),
        "users": counts["users"],
        "  left out": counts["users_left_out"],
        "  held out": counts["held_out_users"],
        "items": counts["items"],
        "train interactions": counts["train"],
        "validation interactions": counts["validation"],
        "  users without": counts["users_without_validation"],
        "test interactions": counts["test"],
        "  users without ": counts["users_without_test"],
        "shards": counts["shards"],
        "rows a second": round(counts["rows"] / seconds),
    }
    always = ("rows read", "users", "items", "train interactions")
    table = [(name, f"{count:,}") for name, count in lines.items() if count or name in always]
    return [*table, ("seconds", f"{seconds:.1f}")]
