"""Plain Ray tasks over many inputs. A bounded number of them runs at once, and each result is passed on as it comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

Result = TypeVar("Result")
TaskMap = Callable[..., Iterator[Any]]
"""The type of `map_tasks` and `map_threads`."""


def map_tasks(function: Callable[..., Result], parts: Iterable[Any], *shared: Any) -> Iterator[Result]:
    """Yield `function(part, *shared)` for every one of `parts`, in the order in which the tasks finish.

    A task takes one CPU. It is run again if its worker dies, so `function` must be pure. At most two tasks a CPU are
    submitted at once, so results do not pile up. The `shared` arguments pass through the object store once. Raises what
    `function` raised.
    """
    remote = _remote(function)
    handles = [ray.put(value) for value in shared]
    in_flight: list[ray.ObjectRef] = []
    limit = 2 * available_cpus()
    for part in parts:
        if len(in_flight) == limit:
            yield _next(in_flight)
        in_flight.append(remote.remote(part, *handles))
    while in_flight:
        yield _next(in_flight)


def map_threads(function: Callable[..., Result], parts: Iterable[Any], *shared: Any) -> Iterator[Result]:
    """Yield `function(part, *shared)` for every one of `parts`, in their order, from threads of this process.

    This is for work that is done before Ray's workers would have started. Raises what `function` raised.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(lambda part: function(part, *shared), parts)


def available_cpus() -> int:
    """Return the number of CPUs of the connected cluster, at least one."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _next(in_flight: list[ray.ObjectRef]) -> Any:
    done, in_flight[:] = ray.wait(in_flight)
    try:
        return ray.get(done[0])
    except RayTaskError as error:
        raise error.cause from None  # raise the task's error as if it had been raised here


@cache
def _remote(function: Callable[..., Any]) -> Any:
    return ray.remote(num_cpus=1)(function)
