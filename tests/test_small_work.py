"""Work that is too small for Ray is done in this process, to the same bytes, by workers that are threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import infrec.pipeline.cluster.sessions
from infrec.jobs.cli import main
from infrec.pipeline.cluster import ThreadPool, Work, in_ray_session, session
from infrec.pipeline.cluster.sessions import RAY_PAYS_SECONDS, cpus_here
from infrec.pipeline.storage import Artefact, InputError, Kind
from tests.models import checksums

_SMALL = """
import sys
from infrec.jobs.cli import main
for line in sys.argv[1].splitlines():
    assert main(line.split()) == 0, line
assert "ray" not in sys.modules
"""


def _commands(out: Path) -> list[str]:
    return [
        f"generate --rows 9000 --users 300 --items 60 --out {out}/log",
        f"ingest {out}/log --out {out}/data",
        f"plan {out}/data",
        f"fit {out}/data --out {out}/model --lambda 5 --normalize none",
        f"fit {out}/data --out {out}/nystrom --solver nystrom --landmarks 50 --lambda 5 --normalize none",
        f"fit {out}/data --out {out}/ease --model ease",
        f"evaluate {out}/model {out}/ease --data {out}/data",
        f"recommend {out}/model --data {out}/data --out {out}/lists --k 10",
        f"recommend {out}/nystrom --histories {out}/log --out {out}/of-histories --k 10",
        f"perturb {out}/data --out {out}/noisy --noise 0.1",
    ]


def test_commands_do_small_work_without_ray(cluster: object, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    subprocess.run([sys.executable, "-c", _SMALL, "\n".join(_commands(small))], check=True)
    for command in _commands(large):
        assert main(command.split()) == 0
    made = sorted(path.parent.relative_to(small) for path in small.glob("*/manifest.json"))
    assert len(made) == 8
    for name in made:
        one, other = (Artefact.open(str(folder / name), *Kind) for folder in (small, large))
        assert checksums(one) == checksums(other), name
        assert one.manifest.fingerprint() == other.manifest.fingerprint(), name


def test_ray_is_taken_where_it_is_asked_for_or_runs(cluster: object) -> None:
    with session(Work()):
        assert in_ray_session(), "the tests' own session is used as it is"


def test_the_work_that_ray_is_started_for() -> None:
    assert Work(rows=1000).seconds() < RAY_PAYS_SECONDS < Work(dense=1e13).seconds()
    assert Work(sparse=1e10).seconds() > Work(dense=1e10).seconds()
    assert (Work(dense=1.0, rows=2.0) + Work(dense=1.0, sparse=3.0)) == Work(dense=2.0, sparse=3.0, rows=2.0)


class Noting:
    """A worker that notes who it is, and that no two threads are in it at the same time."""

    def __init__(self, made: list[Noting]) -> None:
        made.append(self)
        self._made, self._entered = made, threading.Lock()

    def double(self, number: int) -> tuple[int, Noting]:
        assert self._entered.acquire(blocking=False)
        try:
            if number == 13:
                raise InputError("13 brings bad luck")
            return 2 * number, self
        finally:
            self._entered.release()

    def note(self, node: int, needs: dict[int, list[int]], done: set[int]) -> int:
        assert done.issuperset(needs[node])
        done.add(node)
        return -node


def test_call_i_goes_to_worker_i_mod_size() -> None:
    made: list[Noting] = []
    with ThreadPool(3) as pool, pool.workers(Noting, made) as workers:
        assert len(workers) == 3
        assert list(workers.map("double", [])) == []
        results = list(workers.map("double", ((2 * number,) for number in range(50))))
        assert [number for number, _ in results] == list(range(0, 200, 4))
        assert all(results[call][1] is results[call % 3][1] for call in range(50))
        assert len(made) == 3
        workers.dismiss()
        list(workers.map("double", [(1,)]))
        assert len(made) == 4


def test_an_error_ends_all_calls() -> None:
    made: list[Noting] = []
    with ThreadPool(3) as pool, pool.workers(Noting, made) as workers:
        with pytest.raises(InputError, match=r"^13 brings bad luck$"):
            list(workers.map("double", ((number,) for number in range(1000))))
        with pytest.raises(InputError, match=r"^13 brings bad luck$"):
            list(workers.graph("double", list(range(20)), range))
        assert [number for number, _ in workers.map("double", [(1,)])] == [2]


def test_a_graph_waits_for_what_a_node_needs() -> None:
    needs = {node: [node // 2, node // 3] if node else [] for node in range(200)}
    with ThreadPool(3) as pool, pool.workers(Noting, []) as workers:
        ended = dict(workers.graph("note", list(needs)[::-1], needs.__getitem__, needs, set()))
    assert ended == {node: -node for node in needs}


def test_a_container_may_have_fewer_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infrec.pipeline.cluster.sessions, "_CPU_LIMIT", tmp_path / "cpu.max")
    all_cpus = cpus_here()
    for limit, expected in (("max 100000", all_cpus), ("100000 100000", 1), ("50000 100000", 1), ("10 1", all_cpus)):
        (tmp_path / "cpu.max").write_text(limit + "\n")
        assert cpus_here() == min(expected, all_cpus)
