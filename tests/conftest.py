"""Tests share one small local Ray for the whole run, and the real logs if they are at hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from tests.patience import PATIENCE_SECONDS

# What one test has compiled, the processes of the next one need not compile again
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# As in `ray_session`, and before any test starts JAX: bytes must not depend on which tests have run before
os.environ["NPROC"] = "1"
# Without a limit on idle workers, a Ray that a test starts by itself starts dozens of them
os.environ.setdefault("RAY_num_workers_soft_limit", "16")
# Whoever runs the tests may have a cluster, a proxy, a GPU or colours of their own: the jobs under test have none
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("RAY_API_SERVER_ADDRESS", None)
os.environ.pop("INFREC_LOG_FORMAT", None)
os.environ.pop("INFREC_RUN_ID", None)
os.environ.pop("FORCE_COLOR", None)
os.environ |= {"JAX_PLATFORMS": "cpu", "NO_PROXY": "*", "no_proxy": "*"}
# Ray's workers have the priority of other processes. With Ray's default they hardly run beside a busy one
os.environ |= {"RAY_worker_niceness": "0"}
# Nor are Ray's workers ended because other programs have filled the memory
os.environ |= {"RAY_memory_monitor_refresh_ms": "0"}
# Nor does a node end because its agents are slow to start
os.environ |= {"RAY_agent_register_timeout_ms": str(1000 * PATIENCE_SECONDS)}

from infrec.pipeline.cluster import Cluster, Pool, actors, open_pool, pool_size, ray_session
from tests.nodes import wait_for_slow_nodes

wait_for_slow_nodes()

# Shells start background jobs deaf to Ctrl-C, and what these start is deaf as well: the tests that send it are not
signal.signal(signal.SIGINT, signal.default_int_handler)

_LONG = ("test_same_bytes.py", "test_sweep.py", "test_resummarize.py", "test_submit.py", "test_ml1m.py")
"""The files that take longest. Begun first, they do not keep one process busy when the other has nothing left."""

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two CPUs; `ray_session` within a test joins it."""
    with ray_session(cpus=2, gpus=0) as cluster, _kept_actors():
        yield cluster


@contextmanager
def _kept_actors() -> Iterator[None]:
    """Jobs take their actors over from the job before: to start them takes longer than what most tests do with them.

    They hold no CPU, so that tasks have theirs.
    """
    remote = ray.remote(actors.PoolActor).options(num_cpus=0, max_restarts=-1)
    kept = [remote.remote() for _ in range(pool_size())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actors, "_start", lambda: list(kept))
        patch.setattr(actors.ActorPool, "close", lambda pool: None)
        yield


@pytest.fixture(scope="module")
def pool(cluster: Cluster) -> Iterator[Pool]:
    """Actors for the tests of a module that call the pipeline and not a job."""
    with open_pool() as pool:
        yield pool


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real logs, which the licences do not let us carry along."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real logs may not be redistributed: put them into ../shared/data")
    return SHARED_DATA
