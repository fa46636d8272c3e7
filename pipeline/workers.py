"""A pool of Ray actors for numerics: one a GPU where the cluster has them, else one a CPU with one thread each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayTaskError

_GPU_ENVIRONMENT = {"XLA_CLIENT_MEM_FRACTION": "0.9"}


def pool_size() -> int:
    """How many actors a pool has: one for each GPU of the cluster, else one for each CPU."""
    return _resource("GPU") or max(1, _resource("CPU"))


class Pool:
    """Actors of one class. A method call is retried on a restarted actor if its actor or node dies.

    with Pool(GramWorker, dataset) as pool:
        for tiles in pool.map("tile_row", [(i, ntk, exponents) for i in range(12)]):
            ...
    """

    def __init__(self, worker: type, *arguments: Any) -> None:
        """Start `pool_size()` actors `worker(*arguments)` and wait until they are there."""
        gpus = _resource("GPU")
        options: dict[str, Any] = {
            "max_restarts": -1,
            "max_task_retries": -1,
            "num_cpus": 1,  # its threads are bounded by the session's WORKER_ENVIRONMENT
        }
        if gpus:
            options |= {"num_cpus": 0, "num_gpus": 1, "runtime_env": {"env_vars": _GPU_ENVIRONMENT}}
        remote = ray.remote(worker)
        self._actors = [remote.options(**options).remote(*arguments) for _ in range(pool_size())]
        try:
            ray.get([actor.__ray_ready__.remote() for actor in self._actors])
        except BaseException:
            self.close()
            raise

    def map(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call `method` once for each tuple of arguments; results come in the order of the arguments.

        Call i goes to actor i mod size, so the work is shared out in the same way every time. Arguments are taken as
        actors get through them: at most two calls an actor are under way or waiting to be consumed.
        """
        pending: deque[ray.ObjectRef] = deque()
        try:
            for position, given in enumerate(arguments):
                if len(pending) == 2 * len(self._actors):
                    yield ray.get(pending.popleft())
                actor = self._actors[position % len(self._actors)]
                pending.append(getattr(actor, method).remote(*given))
            while pending:
                yield ray.get(pending.popleft())
        except RayTaskError as error:
            raise error.cause from None  # what the worker raised, as if it had been raised here

    def close(self) -> None:
        """End the actors; nothing happens the second time."""
        while self._actors:
            ray.kill(self._actors.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def _resource(name: str) -> int:
    return int(ray.cluster_resources().get(name, 0))
