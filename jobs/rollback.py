"""`infrec rollback`: make an earlier version the current one again."""

from __future__ import annotations

from typing import Annotated

import typer

from infrec.jobs import console
from infrec.jobs.options import Debug
from infrec.pipeline.nightly import State, roll_back
from infrec.pipeline.storage import hold


def rollback(
    state: Annotated[str, typer.Argument(help="A state of `infrec resummarize`.")],
    to: Annotated[
        str | None, typer.Option(help="The version to go to. Default: the one that the current was made from.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Let an earlier version be the current one. The next resummarization goes on from there."""
    place, run = State.at(state), console.run_id()
    with hold(place.root, run) as lock:
        row = roll_back(place, to, lock, run)
    console.result(f"{place.folder(row['version'])} is current; it was {row['from'] or 'none'}.")
