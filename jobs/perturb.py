"""`infrec perturb`: copy a dataset with false interactions in its train part, or with fewer true ones."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from infrec.jobs import console
from infrec.jobs.options import Address, Cpus, Debug, Json, Overwrite, Seed
from infrec.pipeline.cluster import Work, session
from infrec.pipeline.data import Dataset, PerturbConfig
from infrec.pipeline.data import perturb_dataset as perturb_dataset
from infrec.pipeline.storage import ArtefactWriter, Kind

_AS_LONG, _FOR_USER = 4, 200
"""The interactions that are read in the time in which one is written, and in that which each user takes besides."""


def perturb(
    dataset: Annotated[str, typer.Argument(help="A dataset that `infrec ingest` made.")],
    out: Annotated[str, typer.Option(help="Where the perturbed dataset goes.")],
    noise: Annotated[float, typer.Option(help="False interactions for each true one of a training user.")],
    remove: Annotated[float, typer.Option(help="The part of the true ones that is taken away.")] = 0.0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
) -> None:
    """Add noise to the train part of a dataset; validation and test stay as they are."""
    started = time.perf_counter()
    config = PerturbConfig(noise=noise, remove=remove, seed=seed)
    data = Dataset.open(dataset)
    purpose = {"dataset": data.manifest.fingerprint(), **asdict(config)}
    writer = ArtefactWriter(out, Kind.DATASET, purpose=purpose, overwrite=overwrite)
    work = Work(rows=_AS_LONG * data.manifest.counts["train"] + _FOR_USER * data.num_users)
    with writer, session(work, address=address, cpus=cpus), console.progress() as report:
        noisy = perturb_dataset(data, writer, config, report=report)
    seconds = time.perf_counter() - started
    counts = noisy.manifest.counts
    if as_json:
        console.show_json({"dataset": str(noisy.artefact.location), **counts, "seconds": round(seconds, 2)})
        return
    console.result(
        f"{noisy.artefact.location}: {counts['added']:,} false interactions added, {counts['removed']:,} true ones "
        f"removed, {counts['train']:,} in train now ({seconds:.1f} s)"
    )
