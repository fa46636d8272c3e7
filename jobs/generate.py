"""`infrec generate`: write a synthetic interaction log of any size."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from infrec.jobs.console import progress, show_json, show_table
from infrec.jobs.options import Address, Cpus, Debug, Json, Overwrite, Seed
from infrec.pipeline.cluster import Work, session
from infrec.pipeline.data import GenerateConfig
from infrec.pipeline.data import generate_log as generate_log

_AS_LONG = 4
"""The interactions that are read in the time in which one is written."""


def generate(
    out: Annotated[str, typer.Option(help="Directory for the Parquet files.")],
    rows: Annotated[int, typer.Option(help="Rows of the log.")] = 1_000_000,
    users: Annotated[int, typer.Option(help="Users, long-tailed in activity.")] = 10_000,
    items: Annotated[int, typer.Option(help="Items, long-tailed in popularity.")] = 2_000,
    seed: Seed = 0,
    string_ids: Annotated[bool, typer.Option("--string-ids", help="Ids such as user-0042.")] = False,
    dirt: Annotated[float, typer.Option(help="Fraction of rows with a null id, a NaN rating or a duplicate.")] = 0.0,
    files: Annotated[int | None, typer.Option(help="Number of files. Default: one a million rows.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
) -> None:
    """Write a synthetic log: long-tailed users and items, a taste structure that a model can learn,
    timestamps."""
    config = GenerateConfig(
        rows=rows, users=users, items=items, seed=seed, string_ids=string_ids, dirt=dirt, files=files
    )
    with session(Work(rows=_AS_LONG * rows), address=address, cpus=cpus), progress() as report:
        started = time.perf_counter()
        log = generate_log(out, config, overwrite=overwrite, report=report)
        seconds = time.perf_counter() - started
    size = sum(file.size for file in log.manifest.files.values())
    if json:
        show_json({"log": str(log.location), **log.manifest.counts, "bytes": size, "seconds": seconds})
        return
    show_table(
        f"synthetic log {log.location}",
        ("", "count"),
        [
            ("rows", f"{rows:,}"),
            ("files", f"{len(log.manifest.files):,}"),
            ("megabytes", f"{size / 1e6:,.1f}"),
            ("seconds", f"{seconds:.1f}"),
        ],
    )
