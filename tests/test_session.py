"""A Ray that is started on this machine, when its start goes wrong."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import psutil
import ray

from infrec.pipeline.cluster import ray_session
from tests.nodes import answer_of, by_itself, raylets_of_this_process


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
            for raylet in raylets_of_this_process():
                raylet.kill()
                ended.append(raylet.pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    with ray_session(cpus=2) as cluster:
        killer.join()
        assert ray.get(ray.remote(lambda: True).remote())
        heads = {one.pid for one in psutil.process_iter(["ppid", "name", "status"]) if _is_head(one.info)}
        print(len(ended), cluster.cpus, len(heads))


def _is_head(process: dict[str, Any]) -> bool:
    ours = process["ppid"] == os.getpid() and process["name"] == "gcs_server"
    return ours and process["status"] != psutil.STATUS_ZOMBIE
