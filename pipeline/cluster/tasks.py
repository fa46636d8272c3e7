"""A function over many inputs, as plain Ray tasks or in threads. Each result is passed on as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from infrec.pipeline.cluster.sessions import available_cpus, cpus_here, in_ray_session

if TYPE_CHECKING:
    import ray

Result = TypeVar("Result")
TaskMap = Callable[..., Iterator[Any]]
"""The type of `map_tasks` and `map_threads`."""


def map_tasks(function: Callable[..., Result], parts: Iterable[Any], *shared: Any) -> Iterator[Result]:
    """Yield `function(part, *shared)` for every one of `parts`, in any order.

    In a Ray session each call is a task of one CPU. It is made again if its worker dies, so `function` must be pure. At
    most two tasks a CPU are submitted at once, so results do not pile up. The `shared` arguments pass through the
    object store once. Without a session `map_threads` makes the calls. Raises what `function` raised.
    """
    return (_map_remotely if in_ray_session() else map_threads)(function, parts, *shared)


def map_threads(function: Callable[..., Result], parts: Iterable[Any], *shared: Any) -> Iterator[Result]:
    """Yield `function(part, *shared)` for every one of `parts`, in their order, from threads of this process.

    This is for small work: results wait until the caller takes them. Raises what `function` raised.
    """
    with ThreadPoolExecutor(cpus_here()) as pool:
        yield from pool.map(lambda part: function(part, *shared), parts)


def _map_remotely(function: Callable[..., Result], parts: Iterable[Any], *shared: Any) -> Iterator[Result]:
    import ray

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


def _next(in_flight: list[ray.ObjectRef]) -> Any:
    import ray
    from ray.exceptions import RayTaskError

    done, in_flight[:] = ray.wait(in_flight)
    try:
        return ray.get(done[0])
    except RayTaskError as error:
        raise error.cause from None  # raise the task's error as if it had been raised here


@cache
def _remote(function: Callable[..., Any]) -> Any:
    import ray

    return ray.remote(num_cpus=1)(function)
