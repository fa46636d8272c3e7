"""`infrec resummarize`: bring a dataset and its summary up to date as a log grows. A scheduler is to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from infrec.jobs import console
from infrec.jobs.options import Address, Cpus, Debug, Gpus, Json, MemoryLimit, Seed, bytes_of
from infrec.pipeline.cluster import ray_session
from infrec.pipeline.nightly import Decision, ResummarizeConfig, State, look
from infrec.pipeline.nightly import resummarize as make_next_version
from infrec.pipeline.storage import Kept, hold

_DEFAULT = ResummarizeConfig()


def resummarize(
    logs: Annotated[
        list[str], typer.Option(help="Files, directories or globs, as for ingest; repeatable. They may grow.")
    ],
    state: Annotated[str, typer.Option(help="Directory of the versions; the first run begins it.")],
    user: Annotated[str, typer.Option(help="Column of user ids.")] = _DEFAULT.user,
    item: Annotated[str, typer.Option(help="Column of item ids.")] = _DEFAULT.item,
    rating: Annotated[str | None, typer.Option(help="Column of ratings. Default: `rating`, if there is one.")] = None,
    timestamp: Annotated[str, typer.Option(help="Column of times.")] = _DEFAULT.timestamp,
    threshold: Annotated[
        float | None, typer.Option(help="Drop interactions that are rated lower. Default: keep all.")
    ] = None,
    budget: Annotated[int, typer.Option(help="Users of the summary.")] = _DEFAULT.budget,
    window: Annotated[
        str | None, typer.Option(help="Such as 90d: leave out what is older. The dataset is made anew each time.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Updates of the first summary, later ones take a part. Default: by the budget.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="The part of the old summary's nDCG@10 that a new one may lose.")
    ] = _DEFAULT.tolerance,
    keep: Annotated[int, typer.Option(help="Versions to keep, the current one among them.")] = _DEFAULT.keep,
    allow_rewrite: Annotated[
        bool,
        typer.Option("--allow-rewrite", help="Files of the log may vanish or shrink: the dataset is made anew then."),
    ] = False,
    memory_limit: MemoryLimit = None,
    seed: Seed = _DEFAULT.seed,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Fold what is new in a log into the dataset, distill from the last summary on, and publish what is not worse.

    Exit code 0: published, or nothing is new. 3: the old summary stays, as the new one is worse. 4: another run is at
    work. Options that shape the summary are kept with the state: later runs are to give the same.
    """
    config = ResummarizeConfig(
        user=user,
        item=item,
        rating=rating,
        timestamp=timestamp,
        threshold=threshold,
        budget=budget,
        window=window,
        seed=seed,
        steps=steps,
        tolerance=tolerance,
        keep=keep,
    )
    limit, run = bytes_of(memory_limit), console.run_id()
    place = State.at(state, new=True)
    with hold(place.root, run) as lock:
        if lock.taken_from:
            console.note(f"The lock of {lock.taken_from}, which is dead, was taken over.")
        turn = look(logs, place, config, lock, run, allow_rewrite=allow_rewrite, say=console.note)
        if turn is None:
            _say_that_nothing_is_new(place, as_json=as_json)
            return
        with ray_session(address=address, cpus=cpus, gpus=gpus) as cluster, console.progress() as report:
            row = make_next_version(turn, config, lock, run, memory=limit or cluster.memory, report=report)
            if row["decision"] == Decision.KEPT:  # the metrics must not record a success either
                _show(place, row, as_json=as_json)
                raise Kept(f"version {row['version']} stays: {row['reason']}.")
    _show(place, row, as_json=as_json)


def _say_that_nothing_is_new(place: State, *, as_json: bool) -> None:
    version = place.pointed_at()
    if as_json:
        console.show_json({"decision": "nothing new", "version": version})
    else:
        console.result(f"Nothing is new in the log: {place.root} stays at version {version}.")


def _show(place: State, row: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.show_json(row)
        return
    for reason, rows in row["dropped"].items():
        console.note(f"{rows:,} rows dropped: {reason}.")
    files = ", ".join(f"{count:,} {what} file{'s' * (count > 1)}" for what, count in row["files"].items() if count)
    log = f"the whole log ({files})" if row["anew"] else files
    qualities = [
        f"nDCG@10 {quality['new']:.2f}"
        + (f" ({quality['old']:.2f} before)" if quality["old"] is not None else "")
        + f" on {where} of {quality['users']:,} users"
        for where, quality in (
            ("new test interactions", row["quality"]["fresh"]),
            ("all test interactions", row["quality"]["known"]),
        )
        if quality
    ]
    console.result(f"{row['rows']:,} rows of {log}; {'; '.join(qualities)} ({row['seconds']:.1f} s).")
    if row["decision"] == Decision.PUBLISHED:
        console.result(f"{place.folder(row['version'])} is published.")
