"""Runs in a process of their own: on the Ray of the tests, on one core, or on nodes that are lost meanwhile."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import services
from ray._private.node import Node
from ray._raylet import persist_port
from ray.cluster_utils import Cluster

from infrec.pipeline.cluster import ray_session
from tests.patience import PATIENCE_SECONDS

_PORTS_OF_AGENTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)
_reservations: list[socket.socket] = []

PATIENTLY = "from tests.nodes import wait_for_slow_nodes; wait_for_slow_nodes(); "
"""What a program that starts Ray in a process of its own begins with."""


def by_itself(
    function: Callable[..., None], *arguments: Any, one_core: bool = False, joins: bool = False
) -> subprocess.Popen[str]:
    """Call a function of a test module in a process of its own. If it `joins`, its Ray is that of the tests."""
    module, name = Path(inspect.getfile(function)).stem, function.__name__
    code = f"from tests.{module} import {name}; {PATIENTLY}{name}(*{arguments!r})"
    if one_core:  # before anything is imported that asks for the number of cores
        code = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); {code}"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        env=os.environ | (joining() if joins else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_slow_nodes() -> None:
    """Have Ray wait for a node that starts as long as tests wait, but not for one that has ended.

    Ray gives a node 30 s, and a node gives its agents 15 s to say on which ports they listen: too few beside busy
    processes, and no setting changes either. Here the ports are chosen and written down before the agents start.
    """
    find, start = services.get_node, Node.start_ray_processes

    def patiently(*of: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and _newest_raylet_lives():
            with suppress(RuntimeError):  # the node is not there yet
                return find(*of)
            time.sleep(0.1)
        return find(*of)

    def with_ports(node: Node) -> None:
        for agent, port in zip(_PORTS_OF_AGENTS, free_ports(len(_PORTS_OF_AGENTS)), strict=True):
            setattr(node._ray_params, agent, port)
            persist_port(node._session_dir, node._node_id, agent, port)
        start(node)

    services.get_node, Node.start_ray_processes = patiently, with_ports


def _newest_raylet_lives() -> bool:
    """Tell whether the node that this process has started last still runs. One that has ended is a zombie."""
    raylets = _raylets_of_this_process()
    return not raylets or max(raylets, key=psutil.Process.create_time).status() != psutil.STATUS_ZOMBIE


def _raylets_of_this_process() -> list[psutil.Process]:
    """Return the nodes that this process has started, and those that have ended and are zombies."""
    raylets = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it ended just now
            if child.name() == "raylet":
                raylets.append(child)
    return raylets


def free_ports(count: int) -> list[int]:
    """Return TCP ports that are free, and that no other test takes for as long as this process runs.

    They lie above the ports of Ray's workers and below those that Linux gives to whoever asks for any. A port is
    reserved by its namesake of UDP.
    """
    ports: list[int] = []
    for port in range(20_000, 32_000):
        udp = socket.socket(type=socket.SOCK_DGRAM)
        try:
            udp.bind(("", port))
            with socket.socket() as tcp:
                tcp.bind(("", port))
        except OSError:
            udp.close()
            continue
        _reservations.append(udp)
        ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError(f"There are no {count} free ports.")


def joining() -> dict[str, str]:
    """The environment of a process that joins the Ray of the tests, which is much faster than to start another."""
    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


def answer_of(run: subprocess.Popen[str]) -> str:
    """The last line that a process printed, if any, once it has ended well."""
    with run:
        try:
            answer, errors = run.communicate(timeout=PATIENCE_SECONDS)
        finally:
            run.kill()
    assert run.returncode == 0, errors[-2000:]
    return answer.strip().rpartition("\n")[2]


@contextmanager
def session_on_nodes(count: int) -> Iterator[Callable[[], None]]:
    """`ray_session` on a head that computes nothing and `count` nodes with one CPU each; yields `replace_one`.

    Another node joins, and the oldest one dies while the caller goes on: with calls in hand.
    """
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 10},
        },
    )
    nodes = [cluster.add_node(num_cpus=1) for _ in range(count)]
    with ThreadPoolExecutor(1) as meanwhile, ray_session(address=cluster.address):

        def replace_one() -> None:
            nodes.append(cluster.add_node(num_cpus=1))
            meanwhile.submit(cluster.remove_node, nodes.pop(0), allow_graceful=False)

        yield replace_one
    cluster.shutdown()
