"""The lock of a state: one owner at a time, whoever dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from infrec.pipeline.storage import LOCK, Busy, Location, hold
from infrec.pipeline.storage.lock import Owner
from tests.patience import PATIENCE_SECONDS

PROCESSES, TURNS = 4, 25


def _count(folder: str) -> None:
    """Add 1 to a number in a file, again and again, in a way that loses some if two do it at once."""
    number = Path(folder) / "number"
    done = 0
    while done < TURNS:
        try:
            with hold(Location.of(folder), f"process {os.getpid()}"):
                value = int(number.read_text())
                time.sleep(0.001)
                number.write_text(str(value + 1))
                done += 1
        except Busy:
            time.sleep(0.002)


def test_only_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    # Some of the time a lock of a dead process lies there, which all of them want to take over
    (tmp_path / LOCK).write_text(json.dumps(_dead_process()))
    context = multiprocessing.get_context("forkserver")
    counters = [context.Process(target=_count, args=(str(tmp_path),)) for _ in range(PROCESSES)]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join(PATIENCE_SECONDS)
    assert [counter.exitcode for counter in counters] == [0] * PROCESSES
    assert int((tmp_path / "number").read_text()) == PROCESSES * TURNS
    assert not (tmp_path / LOCK).exists()


def test_a_living_owner_is_named(tmp_path: Path) -> None:
    with hold(Location.of(tmp_path), "first"):
        with (
            pytest.raises(Busy, match=f"run first .process {os.getpid()} on ") as refusal,
            hold(Location.of(tmp_path), "second"),
        ):
            pass
        assert refusal.value.exit_code == 4
    with hold(Location.of(tmp_path), "second") as lock:
        assert lock.taken_from is None


@pytest.mark.parametrize("case", ["dead process", "number of another process", "expired", "damaged"])
def test_what_the_dead_leave_is_taken_over(tmp_path: Path, case: str) -> None:
    owner = vars(Owner.this_process("before", 600))
    if case == "dead process":
        owner = _dead_process()
    elif case == "number of another process":
        owner["process_started"] -= 1000
    elif case == "expired":
        owner |= {"machine": "elsewhere", "expires": time.time() - 1}
    (tmp_path / LOCK).write_text("{" if case == "damaged" else json.dumps(owner))
    with hold(Location.of(tmp_path), "after") as lock:
        assert (lock.taken_from is None) == (case == "damaged")
        assert json.loads((tmp_path / LOCK).read_text())["run"] == "after"


def test_a_process_of_another_machine_is_not_dead_before_its_time(tmp_path: Path) -> None:
    owner = _dead_process() | {"machine": "elsewhere"}
    (tmp_path / LOCK).write_text(json.dumps(owner))
    with pytest.raises(Busy), hold(Location.of(tmp_path), "impatient"):
        pass
    assert json.loads((tmp_path / LOCK).read_text()) == owner


def test_it_is_renewed_while_its_owner_lives(tmp_path: Path) -> None:
    with hold(Location.of(tmp_path), "long", seconds=0.5) as lock:
        first = json.loads((tmp_path / LOCK).read_text())["expires"]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while json.loads((tmp_path / LOCK).read_text())["expires"] < first + 0.5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with lock.ours():
            pass


def test_who_lost_it_finds_out_and_leaves_it_alone(tmp_path: Path) -> None:
    with hold(Location.of(tmp_path), "suspended") as lock:
        other = vars(Owner.this_process("other", 600))
        (tmp_path / LOCK).write_text(json.dumps(other))
        with pytest.raises(Busy, match="which took over the lock"), lock.ours():
            raise AssertionError("not reached")
    assert json.loads((tmp_path / LOCK).read_text()) == other


def _dead_process() -> dict[str, object]:
    child = multiprocessing.get_context("forkserver").Process(target=time.time)
    child.start()
    child.join()
    return vars(Owner.this_process("dead", 600)) | {"pid": child.pid}
