"""A Ray that is started on this machine, when its start goes wrong."""

from __future__ import annotations

import os
from typing import Any

import psutil
import ray
from ray._private import services

from infrec.pipeline.cluster import ray_session
from tests.nodes import answer_of, by_itself


def test_a_node_that_ends_before_it_is_up_is_started_again() -> None:
    """As Ray's nodes do whose agents take more than 15 s to start. In a process of its own: this one has its Ray."""
    ended, cpus, heads = answer_of(by_itself(start_with_a_first_node_that_ends)).split()
    assert (ended, cpus) == ("1", "2")
    assert heads == "1", "what belonged to the first node still runs"


def start_with_a_first_node_that_ends() -> None:
    """Open a session. The first node that it starts is killed at once, before it can do anything.

    Prints the number of kills, the CPUs of the session, and the number of head processes that run.
    """
    start, ended = services.start_raylet, []

    def start_raylet(*of: Any, **options: Any) -> Any:
        started = start(*of, **options)
        if not ended:
            started.process.kill()
            ended.append(started)
        return started

    services.start_raylet = start_raylet
    with ray_session(cpus=2) as cluster:
        assert ray.get(ray.remote(lambda: True).remote())
        heads = {one.pid for one in psutil.process_iter(["ppid", "name", "status"]) if _is_head(one.info)}
        print(len(ended), cluster.cpus, len(heads))


def _is_head(process: dict[str, Any]) -> bool:
    ours = process["ppid"] == os.getpid() and process["name"] == "gcs_server"
    return ours and process["status"] != psutil.STATUS_ZOMBIE
