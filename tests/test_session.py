"""A Ray that is started on this machine, when its start goes wrong."""

from __future__ import annotations

import threading
import time

import psutil
import ray

from infrec.pipeline.cluster import ray_session
from tests.nodes import answer_of, by_itself


def test_a_node_that_ends_before_it_is_up_is_started_again() -> None:
    """As Ray's nodes do whose agents take more than 15 s to start. In a process of its own: this one has its Ray."""
    ended, cpus, heads = answer_of(by_itself(start_beside_a_killer)).split()
    assert (ended, cpus) == ("1", "2")
    assert heads == "1", "what belonged to the first node still runs"


def start_beside_a_killer() -> None:
    """Open a session while a thread kills the first node that starts.

    Prints the number of kills, the CPUs of the session, and the number of head processes that run.
    """
    ended: list[int] = []

    def kill_the_first() -> None:
        while not ended:
            for child in psutil.Process().children():
                if child.name() == "raylet":
                    child.kill()
                    ended.append(child.pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    with ray_session(cpus=2) as cluster:
        killer.join()
        assert ray.get(ray.remote(lambda: True).remote())
        children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
        print(len(ended), cluster.cpus, sum(child.name() == "gcs_server" for child in children))
