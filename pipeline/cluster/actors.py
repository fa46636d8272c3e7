"""The pool of a Ray session: one actor a GPU where the cluster has GPUs, else one a CPU with one thread each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from infrec.pipeline.cluster.pool import Pool, Workers

_GPU_ENVIRONMENT = {"XLA_CLIENT_MEM_FRACTION": "0.9"}
_recipe_numbers = itertools.count()


def number_of_actors() -> int:
    """Return how many actors a pool has: one for each GPU of the cluster or, if it has none, one for each CPU."""
    return _resource("GPU") or max(1, _resource("CPU"))


class ActorPool(Pool):
    """A pool of actors. If an actor or its node dies, its calls are made again on the actor that takes its place."""

    def __init__(self) -> None:
        """Begin to start `number_of_actors()` actors. The first call waits until they have started."""
        gpus = _resource("GPU")
        options: dict[str, Any] = {
            "max_restarts": -1,
            "max_task_retries": -1,
            "num_cpus": 1,  # the session's WORKER_ENVIRONMENT bounds its threads
        }
        if gpus:
            options |= {"num_cpus": 0, "num_gpus": 1, "runtime_env": {"env_vars": _GPU_ENVIRONMENT}}
        remote = ray.remote(PoolActor)
        self._actors = [remote.options(**options).remote() for _ in range(number_of_actors())]

    def workers(self, worker: type, *arguments: Any) -> Workers:
        return _ActorWorkers(self._actors, worker, *arguments)

    def close(self) -> None:
        while self._actors:
            ray.kill(self._actors.pop())


class _ActorWorkers(Workers):
    def __init__(self, actors: list[Any], worker: type, *arguments: Any) -> None:
        super().__init__(len(actors))
        self._actors = actors
        self._recipe = ray.put((next(_recipe_numbers), worker, arguments))
        for actor in actors:
            # Start now, while the caller prepares its arguments. If this fails, the first call makes the worker
            actor.become.options(max_task_retries=0).remote(self._recipe)

    def share(self, value: Any) -> Any:
        return ray.put(value)

    def dismiss(self) -> None:
        for actor in self._actors:
            actor.dismiss.options(max_task_retries=0).remote()

    def _submit(self, worker: int, method: str, *given: Any) -> ray.ObjectRef:
        return self._actors[worker].call.remote(self._recipe, method, *given)

    def _result(self, call: ray.ObjectRef) -> Any:
        try:
            return ray.get(call)
        except RayTaskError as error:
            raise error.cause from None  # raise the worker's error as if it had been raised here

    def _first_ended(self, calls: Sequence[ray.ObjectRef]) -> ray.ObjectRef:
        (ended, *_), _ = ray.wait(list(calls))
        return ended

    def _abandon(self, calls: Iterable[ray.ObjectRef]) -> None:
        for call in calls:
            ray.wait([call])


class PoolActor:
    """An actor that becomes the worker that a call asks for.

    It makes the worker at the first call, and again after a restart. The recipe of a worker is its number, class and
    arguments.
    """

    _number: int
    _worker: Any

    def __init__(self) -> None:
        self.dismiss()

    def call(self, recipe: tuple[int, type, tuple[Any, ...]], method: str, *given: Any) -> Any:
        self.become(recipe)
        return getattr(self._worker, method)(*given)

    def become(self, recipe: tuple[int, type, tuple[Any, ...]]) -> None:
        number, worker, arguments = recipe
        if number != self._number:
            self.dismiss()
            self._worker, self._number = worker(*arguments), number

    def dismiss(self) -> None:
        self._worker, self._number = None, -1


def _resource(name: str) -> int:
    return int(ray.cluster_resources().get(name, 0))
