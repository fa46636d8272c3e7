"""Where a job computes: on a running Ray cluster, on a Ray that is started on this machine, or in this process.

This is the one place that starts Ray. Ray's import takes half a second, so it is imported only where Ray is used.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import psutil

from infrec.pipeline.cluster.addresses import check_address
from infrec.pipeline.cluster.memory import HEAPS, limit_heaps
from infrec.pipeline.cluster.pool import Pool
from infrec.pipeline.cluster.threads import ThreadPool
from infrec.pipeline.cluster.work import Work
from infrec.pipeline.storage import InputError

Node = TypeVar("Node")

# A worker has one thread. So k workers on k cores do not compete, and the bytes of a result do not depend on the number
# of cores. XLA's CPU client takes its thread count from NPROC, BLAS from its own variables, both as the process starts.
WORKER_ENVIRONMENT = {
    "NPROC": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": str(HEAPS),
}

_DRIVER_ENVIRONMENT = {"NPROC": "1"}
"""With more threads, the driver's own XLA would split sums among them. BLAS keeps its threads unless `kernels.tiles`
forbids it."""

_RAY_ENVIRONMENT = {
    "RAY_num_workers_soft_limit": "16",  # without a limit on idle workers, tiny Ray Data pipelines start dozens
    # Ray then frees the matrices that a step passes around at once, not once a second: their pages would stay touched
    "RAY_free_objects_period_milliseconds": "50",
}
"""The settings of a Ray that starts here. A variable that the user has set already stays."""

MIB = 1 << 20
OBJECT_STORE_BYTES = 1024 * MIB
"""The size of Ray's object store. Slices and blocks pass through it and are consumed at once, so it need not grow with
the data. Only the dataset of a sweep stays there. Ray maps objects that are too large for it from files."""

_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""The file in which Linux says how many microseconds of CPU a container may take in a period, and the period."""
_FIRST_GPU = Path("/dev/nvidia0")

_STARTS = 3
_NOT_UP = "timed out during startup"
"""What Ray says of a node that did not come up. A node ends if its agents take more than 15 s to start, as they can
beside busy processes. No setting changes that (github.com/ray-project/ray/issues/65983)."""

RAY_PAYS_SECONDS = 10.0
"""The work, in seconds of one CPU, for which Ray is started on this machine. Its start and stop take five seconds, and
its processes share out what the threads of one process cannot."""

NODES_SECONDS = 900.0
"""The time that a cloud may take to start a node. Ray gives a submitted job as long."""


@dataclass(frozen=True)
class Cluster:
    """The resources of a session."""

    cpus: int
    gpus: int
    memory: int
    """Bytes of available memory on the driver's node. A plan may use them where no limit is given."""


@contextmanager
def session(
    work: Work, *, address: str | None = None, cpus: int | None = None, gpus: int | None = None
) -> Iterator[Cluster]:
    """Open a `ray_session` for this work of the pool and of tasks, or let this process do it if it is small.

    Where an address, CPUs or GPUs are given, $RAY_ADDRESS is set, or this machine has a GPU, the session is one of Ray.
    The bytes of the results are the same in both.
    """
    asked_for = address or os.environ.get("RAY_ADDRESS") or cpus is not None or gpus is not None
    if asked_for or in_ray_session() or _has_gpu() or work.seconds() > RAY_PAYS_SECONDS:
        with ray_session(address=address, cpus=cpus, gpus=gpus) as cluster:
            yield cluster
        return
    limit_heaps()
    with environment(_DRIVER_ENVIRONMENT):
        yield this_machine()


def this_machine() -> Cluster:
    """Return the resources of a session without Ray."""
    return Cluster(cpus=cpus_here(), gpus=0, memory=psutil.virtual_memory().available)


def in_ray_session() -> bool:
    """Return whether this process is connected to Ray."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def cpus_here() -> int:
    """Return the number of CPUs that this process may use: fewer than the machine has in many containers."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is no such limit
        allowed, period = map(int, _CPU_LIMIT.read_text().split())
        cpus = min(cpus, max(1, allowed // period))
    return cpus


def _has_gpu() -> bool:
    return _FIRST_GPU.exists() and os.environ.get("JAX_PLATFORMS") != "cpu"


def available_cpus() -> int:
    """Return the number of CPUs of the session, at least one."""
    if not in_ray_session():
        return cpus_here()
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def pool_size() -> int:
    """Return how many workers the pool of the session has."""
    if not in_ray_session():
        return cpus_here()
    from infrec.pipeline.cluster.actors import number_of_actors

    return number_of_actors()


def open_pool() -> Pool:
    """Return the pool of the session: actors in one of Ray, else threads."""
    if not in_ray_session():
        return ThreadPool(cpus_here())
    from infrec.pipeline.cluster.actors import ActorPool

    return ActorPool()


@contextmanager
def ray_session(*, address: str | None = None, cpus: int | None = None, gpus: int | None = None) -> Iterator[Cluster]:
    """Connect to the cluster at `address` (or $RAY_ADDRESS), else start Ray on this machine with `cpus` and `gpus`.

    An autoscaled cluster is asked for `cpus` and `gpus`, and is given time to start them. Pools have as many
    actors as there are CPUs or GPUs by then. A session that is already open is used as it is and left open. A session
    that is opened here is closed at the end of the block.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    limit_heaps()
    with environment(_DRIVER_ENVIRONMENT):
        opened = not ray.is_initialized()
        address = (address or os.environ.get("RAY_ADDRESS")) if opened else None
        if opened:
            logging.getLogger("ray").setLevel(logging.ERROR)
            if address:
                _join(address, cpus=cpus, gpus=gpus)
            else:
                _start(cpus=cpus, gpus=gpus)
        try:
            resources = ray.cluster_resources()
            yield Cluster(
                cpus=max(1, int(resources.get("CPU", 1))),
                gpus=int(resources.get("GPU", 0)),
                memory=psutil.virtual_memory().available,
            )
        finally:
            if opened:
                if address and (cpus or gpus):
                    request_resources(bundles=[])  # the autoscaler may stop idle nodes now
                ray.shutdown()


def _join(address: str, *, cpus: int | None, gpus: int | None) -> None:
    """Connect to a cluster, and have its autoscaler start the CPUs and GPUs that were asked for."""
    import ray

    check_address(address)
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except ConnectionError as error:  # of "auto"; other addresses have answered
        raise InputError("No Ray cluster runs on this machine: give the address of its head.", "address") from error
    if cpus or gpus:
        _scale_up(CPU=cpus or 0, GPU=gpus or 0)


def _start(*, cpus: int | None, gpus: int | None) -> None:
    """Start Ray on this machine."""
    import ray

    settings = {name: os.environ.get(name, value) for name, value in _RAY_ENVIRONMENT.items()}
    # Workers inherit the variables of this process. So no actor needs a process that is started specially for it
    with environment({**settings, **WORKER_ENVIRONMENT}):
        until_up(
            lambda: ray.init(
                "local",  # else Ray joins a cluster of this machine's, and refuses the other arguments
                num_cpus=cpus,
                num_gpus=gpus,
                object_store_memory=min(OBJECT_STORE_BYTES, psutil.virtual_memory().available // 4),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        )


def until_up(start: Callable[[], Node]) -> Node:
    """Start a node of Ray, and start it again, up to twice, if it ends before it is up."""
    for _ in range(_STARTS - 1):
        before = psutil.Process().children()
        try:
            return start()
        except Exception as error:  # Ray raises nothing more special
            if _NOT_UP not in str(error):
                raise
            _end_processes_of_ray(before)
    return start()


def _end_processes_of_ray(others: Collection[psutil.Process]) -> None:
    """End this process's children that run Ray, but for `others`.

    Ray itself leaves those of a node that did not come up to the end of this process. They would slow the next start.
    """
    specification = find_spec("ray")
    assert specification is not None and specification.origin is not None
    folder = str(Path(specification.origin).parent)
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child not in others and any(word.startswith(folder) for word in child.cmdline()):
                child.kill()


def _scale_up(**wanted: int) -> None:
    """Ask for nodes with these resources, and wait for them.

    After NODES_SECONDS go on with the nodes that there are. The bytes of the results are the same.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[{name: 1} for name, count in wanted.items() for _ in range(count)])
    deadline = time.monotonic() + NODES_SECONDS
    while any(ray.cluster_resources().get(name, 0) < count for name, count in wanted.items()):
        if time.monotonic() > deadline:
            break
        time.sleep(1)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these variables, for this process and those that it starts, within the block.

    After the block the variables are what they were before it.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
