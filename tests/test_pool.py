"""The production pool on clusters that have less room than it would like, and workers that end at every try."""

from __future__ import annotations

import os
import signal
import time

import pytest
import ray

from infrec.pipeline.cluster import actors, open_pool, ray_session
from tests.nodes import answer_of, by_itself
from tests.patience import PATIENCE_SECONDS


class Doubling:
    def double(self, number: int) -> int:
        return 2 * number

    def of_node(self, node: tuple[int, int]) -> int:
        return 2 * node[0]

    def process(self) -> int:
        return os.getpid()

    def end_at(self, number: int, fatal: int) -> int:
        if number == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return number


def test_a_pool_takes_the_room_that_others_leave() -> None:
    assert answer_of(by_itself(beside_another_job)) == "1 [0, 2, 4, 6, 8]"


def beside_another_job() -> None:
    with ray_session(cpus=2):
        other = ray.remote(num_cpus=1)(Doubling).remote()
        assert ray.get(other.double.remote(1)) == 2
        with open_pool() as pool, pool.workers(Doubling) as workers:
            print(len(workers), list(workers.map("double", ((number,) for number in range(5)))))


def test_a_worker_that_cannot_be_placed_gets_no_calls_until_there_is_room() -> None:
    """As where a node is lost while actors start."""
    assert answer_of(by_itself(one_actor_too_many)) == "2 [0, 2, 4, 6, 8] [((0, 0), 0), ((1, 0), 2), ((1, 1), 2)] 1 2"


def one_actor_too_many() -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(actors, "_room", lambda kind: 2)
    patch.setattr(actors, "_BEGIN_SECONDS", 5.0)
    with ray_session(cpus=2):
        other = ray.remote(num_cpus=1)(Doubling).remote()
        ray.get(other.double.remote(1))
        with open_pool() as pool, pool.workers(Doubling) as workers:
            doubled = list(workers.map("double", ((number,) for number in range(5))))
            nodes = [(0, 0), (1, 0), (1, 1)]
            graph = sorted(workers.graph("of_node", nodes, lambda node: [(0, 0)] if node[0] else []))
            one = len(set(workers.map("process", [()] * 10)))
            ray.kill(other)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while (two := len(set(workers.map("process", [()] * 10)))) < 2:
                assert time.monotonic() < deadline
        print(len(workers), doubled, graph, one, two)


def test_the_actor_in_place_of_a_killed_one_takes_part() -> None:
    assert answer_of(by_itself(one_actor_is_killed)) == "2 2"


def one_actor_is_killed() -> None:
    with ray_session(cpus=2), open_pool() as pool, pool.workers(Doubling) as workers:
        before = set(workers.map("process", [()] * 10))
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(after := set(workers.map("process", [()] * 10)) - {killed}) < 2:
            assert time.monotonic() < deadline
    print(len(before), len(after))


def test_a_call_that_ends_every_worker_is_named() -> None:
    said = answer_of(by_itself(end_three_workers))
    assert said.startswith("Doubling.end_at, call 3, has ended its worker 3 times: ")


def end_three_workers() -> None:
    with ray_session(cpus=2), open_pool() as pool, pool.workers(Doubling) as workers:
        with pytest.raises(RuntimeError) as error:
            list(workers.map("end_at", ((number, 3) for number in range(50))))
        assert list(workers.map("double", [(1,), (2,)])) == [2, 4], "the pool goes on"
    print(error.value)
