"""`infrec plan`: show what each solver of the ∞-AE needs for a dataset, and which one `infrec fit` would take."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from infrec.jobs import console
from infrec.jobs.fit import Exponent, Lambda, Landmarks, Normalize, Normalized, infinite_ae_search
from infrec.jobs.options import Address, Cpus, Debug, Gpus, Json, MemoryLimit, bytes_of, sentence_of
from infrec.pipeline.cluster import Work, gigabytes, session
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import check_landmarks
from infrec.pipeline.solvers import Estimate, Resources, chosen, estimates
from infrec.pipeline.storage import DoesNotFit


def plan(
    dataset: Annotated[str, typer.Argument(help="A dataset made by `infrec ingest`.")],
    lam: Lambda = None,
    normalize: Normalized = Normalize.DEGREE,
    exponents: Exponent = None,
    landmarks: Landmarks = None,
    memory_limit: MemoryLimit = None,
    as_json: Json = False,
    debug: Debug = False,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
) -> None:
    """Say what each solver would need of memory, disk and time for a dataset, and which one `fit` would choose."""
    data = Dataset.open(dataset)
    check_landmarks(landmarks or 0, data)
    search = infinite_ae_search(lam=lam, normalize=normalize, exponents=exponents, landmarks=landmarks)
    limit = bytes_of(memory_limit)
    with session(Work(), address=address, cpus=cpus, gpus=gpus) as cluster:
        # Models usually lie beside their dataset, on the same disk
        resources = Resources.of(cluster, memory_limit=limit, disk=data.artefact.location.free())
        known = estimates(data, search, resources)
    best: Estimate | None = None
    try:
        best = chosen(known, resources)
    except DoesNotFit as error:
        console.note(sentence_of(error))
    if as_json:
        console.show_json(
            {
                "users": data.num_training_users,
                "items": data.num_items,
                "interactions": data.manifest.counts["train"],
                "resources": asdict(resources),
                "solvers": {
                    one.solver: {
                        "memory": one.plan.peak,
                        "disk": one.plan.disk,
                        "operations": one.work.operations,
                        "seconds": round(one.seconds, 1),
                        "obstacle": one.obstacle(resources),
                    }
                    for one in known
                },
                "chosen": best.solver if best else None,
            }
        )
        return
    rows = [
        [
            one.solver,
            gigabytes(one.plan.peak),
            gigabytes(one.plan.disk),
            f"{one.work.operations / 1e12:,.2f}",
            _duration(one.seconds),
            one.obstacle(resources) or ("chosen" if one is best else "fits"),
        ]
        for one in known
    ]
    title = f"{data.num_training_users:,} users × {data.num_items:,} items, {resources.cpus} CPUs"
    console.show_table(title, ["solver", "memory", "disk", "TFLOP", "time", ""], rows)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
