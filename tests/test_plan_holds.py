"""A job takes the memory that its plan says, to a quarter. Memory is the sum of proportional set sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.measure import peak_memory
from infrec.pipeline.cluster import open_pool, ray_session
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import DistillConfig, plan_summarise, summarise
from infrec.pipeline.models import PAPER_EXPONENTS, InfiniteAEConfig, NystromConfig
from infrec.pipeline.solvers import Resources, Search, Solver, estimates
from infrec.pipeline.solvers.choice import fit_infinite_ae
from infrec.pipeline.storage import ArtefactWriter, Kind
from tests.builders import taste_dataset
from tests.nodes import answer_of, by_itself

SEARCH = Search(
    InfiniteAEConfig(lambdas=(5.0,), exponents=PAPER_EXPONENTS),
    NystromConfig(lambdas=(5.0,), exponents=PAPER_EXPONENTS),
)
DISTILLATION = DistillConfig(budget=300, steps=4, validate_every=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Large enough that its matrices count."""
    out = tmp_path_factory.mktemp("plan") / "dataset"
    taste_dataset(out, 4000, 3000, seed=0, shards=4)
    return str(out)


@pytest.mark.parametrize("job", [*map(str, Solver), "distill"])
def test_the_peak_is_within_a_quarter_of_the_plan(job: str, dataset: str, tmp_path: Path) -> None:
    planned, peak = json.loads(answer_of(by_itself(run, job, dataset, str(tmp_path / "out"))))
    assert 0.75 * planned < peak < 1.25 * planned, f"{peak / 1e6:.0f} MB, {planned / 1e6:.0f} were planned"


def run(job: str, dataset: str, out: str) -> None:
    """In a process and a Ray of its own; prints plan and peak in bytes."""
    data = Dataset.open(dataset)
    with ray_session(cpus=2) as cluster:
        if job == "distill":
            plan = plan_summarise(data, DISTILLATION)
        else:
            known = estimates(data, SEARCH, Resources.of(cluster, memory_limit=None, disk=None))
            (plan,) = (estimate.plan for estimate in known if estimate.solver == job)
        with peak_memory() as peak, open_pool() as pool:
            if job == "distill":
                with ArtefactWriter(out, Kind.SUMMARY, purpose={}) as writer:
                    summarise(data, writer, DISTILLATION, pool)
            else:
                with ArtefactWriter(out, Kind.MODEL, purpose={}) as writer:
                    fit_infinite_ae(Solver(job), SEARCH, data, writer, pool)
    print(json.dumps([plan.peak, peak.of_the_job]))
