"""The planner chooses a solver, and its estimates grow with the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrec.pipeline.cluster import Cluster, Plan, Work
from infrec.pipeline.models import InfiniteAEConfig, NystromConfig
from infrec.pipeline.solvers import Estimate, Resources, Search, Solver, choice, choose, chosen, estimates
from infrec.pipeline.solvers.choice import PATIENCE_SECONDS, gemm_rate
from infrec.pipeline.storage import DoesNotFit
from tests.builders import taste_dataset

RESOURCES = Resources(cpus=2, memory=1000, disk=1000)


def estimate(solver: Solver, *, memory: int, disk: int = 0, seconds: float = 1.0) -> Estimate:
    return Estimate(solver, Plan("A fit", {"driver": memory}, "take less", (), disk=disk), Work(), Work(), 1.0, seconds)


@pytest.mark.parametrize(
    ("exact", "tiled", "expected"),
    [
        ({"memory": 1000}, {"memory": 10}, Solver.EXACT),
        ({"memory": 1001}, {"memory": 10, "disk": 1000}, Solver.TILED),
        ({"memory": 1001}, {"memory": 10, "disk": 1001}, Solver.NYSTROM),
        ({"memory": 1001}, {"memory": 10, "seconds": PATIENCE_SECONDS + 1}, Solver.NYSTROM),
    ],
)
def test_the_first_that_fits_is_chosen(exact: dict[str, int], tiled: dict[str, int], expected: Solver) -> None:
    known = [
        estimate(Solver.EXACT, **exact),
        estimate(Solver.TILED, **tiled),
        estimate(Solver.NYSTROM, memory=20),
    ]
    assert chosen(known, RESOURCES).solver == expected


def test_an_object_store_has_room() -> None:
    known = [estimate(Solver.TILED, memory=10, disk=10**18)]
    assert chosen(known, Resources(cpus=2, memory=1000, disk=None)).solver == Solver.TILED


def test_where_none_fits_each_says_why() -> None:
    known = [estimate(Solver.EXACT, memory=2 * 10**9), estimate(Solver.TILED, memory=10, disk=3 * 10**9)]
    with pytest.raises(
        DoesNotFit, match=r"exact: .* is more memory than 0\.00 GB; tiled: .* is more disk than 0\.00 GB"
    ):
        chosen(known, RESOURCES)


def test_estimates_follow_the_dataset_and_the_search(cluster: Cluster, tmp_path: Path) -> None:
    small, large = (taste_dataset(tmp_path / f"{users}", users, 60, seed=1) for users in (300, 900))
    search = Search(InfiniteAEConfig(lambdas=(5.0,)), NystromConfig(lambdas=(5.0,), landmarks=100))
    wider = Search(InfiniteAEConfig(lambdas=(1.0, 5.0)), NystromConfig(lambdas=(1.0, 5.0), landmarks=100))
    resources = Resources.of(cluster, memory_limit=10**9, disk=small.artefact.location.free())
    assert resources.memory == 10**9
    assert resources.disk is not None
    base, more_users, more_candidates = (
        {one.solver: one for one in estimates(dataset, asked, resources)}
        for dataset, asked in ((small, search), (large, search), (small, wider))
    )
    assert list(base) == [Solver.EXACT, Solver.TILED, Solver.NYSTROM]
    for solver, one in base.items():
        assert one.seconds > 0
        assert more_users[solver].work.operations > one.work.operations
        assert more_candidates[solver].work.operations > one.work.operations
    assert more_users[Solver.EXACT].work.operations > 20 * base[Solver.EXACT].work.operations
    assert more_users[Solver.NYSTROM].work.operations < 4 * base[Solver.NYSTROM].work.operations
    assert base[Solver.TILED].plan.disk > 0


def test_the_choice_depends_on_no_clock(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine a million times slower, where no solver would end within a day, the same command takes the same."""
    dataset = taste_dataset(tmp_path / "data", 300, 60, seed=1)
    search, resources = Search(InfiniteAEConfig(), NystromConfig()), Resources(cpus=1, memory=10**10, disk=None)
    fast = choose(dataset, search, resources)
    monkeypatch.setattr(choice, "gemm_rate", lambda: 1e3)
    slow = choose(dataset, search, resources)
    assert slow.seconds > PATIENCE_SECONDS > fast.seconds
    assert slow.solver == fast.solver == Solver.EXACT


def test_the_rate_of_a_core_is_measured() -> None:
    assert 1e9 < gemm_rate(256) < 1e13
