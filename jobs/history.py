"""`infrec history`: show the outcome of every resummarization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from infrec.jobs import console
from infrec.jobs.options import Debug, Json
from infrec.pipeline.nightly import State, rows


def history(
    state: Annotated[str, typer.Argument(help="A state of `infrec resummarize`.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """When, interactions added, nDCG@10 of the old and new summary, seconds, decision: a line a run, newest last."""
    place = State.at(state)
    current, told = place.pointed_at(), rows(place.root, console.note)
    if as_json:
        console.show_json({"state": str(place.root), "current": current, "history": told})
        return
    title = f"{place.root}: " + (f"version {current} is current" if current else "no version is current")
    columns = ("when (UTC)", "version", "decision", "added", "fresh old", "new", "all old", "new ", "seconds")
    console.show_table(title, columns, [*map(_cells, told)])


def _cells(row: Mapping[str, Any]) -> list[str]:
    qualities = [(row.get("quality") or {}).get(where) or {} for where in ("fresh", "known")]
    return [
        row["when"][:19].replace("T", " "),
        row["version"],
        row["decision"],
        f"{row['added']:,}" if "added" in row else "",
        *(
            "" if (value := quality.get(which)) is None else console.number(value)
            for quality in qualities
            for which in ("old", "new")
        ),
        f"{row['seconds']:.1f}" if "seconds" in row else "",
    ]
