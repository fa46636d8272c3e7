"""A pool of Ray actors for numerics: one a GPU where the cluster has GPUs, else one a CPU with one thread each.

`InProcess` is such a pool without actors. It is for a process that is itself one of many, such as a trial of a sweep.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from graphlib import TopologicalSorter
from types import TracebackType
from typing import Any, Self, TypeVar

import ray
from ray.exceptions import RayTaskError

from infrec.kernels.tiles import one_blas_thread

_GPU_ENVIRONMENT = {"XLA_CLIENT_MEM_FRACTION": "0.9"}
_recipe_numbers = itertools.count()

Key = TypeVar("Key", bound=tuple[Any, ...])


def pool_size() -> int:
    """Return how many actors a pool has: one for each GPU of the cluster or, if it has none, one for each CPU."""
    return _resource("GPU") or max(1, _resource("CPU"))


class Pool:
    """Actors that a job starts once. They become workers of one class after another.

    with Pool() as pool:
        with pool.workers(GramWorker, dataset) as gram:
            for tiles in gram.map("tile_row", [(i, ntk, exponents) for i in range(12)]):
                ...
    """

    def __init__(self) -> None:
        """Begin to start `pool_size()` actors. The first call waits until they have started."""
        gpus = _resource("GPU")
        options: dict[str, Any] = {
            "max_restarts": -1,
            "max_task_retries": -1,
            "num_cpus": 1,  # the session's WORKER_ENVIRONMENT bounds its threads
        }
        if gpus:
            options |= {"num_cpus": 0, "num_gpus": 1, "runtime_env": {"env_vars": _GPU_ENVIRONMENT}}
        remote = ray.remote(PoolActor)
        self._actors = [remote.options(**options).remote() for _ in range(pool_size())]

    def workers(self, worker: type, *arguments: Any) -> Workers:
        """Make every actor a `worker(*arguments)` from now on, in place of the worker that it was before."""
        return Workers(self._actors, worker, *arguments)

    def close(self) -> None:
        """End the actors. A second call does nothing."""
        while self._actors:
            ray.kill(self._actors.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class InProcess(Pool):
    """This process in place of actors. It makes every call itself, and the results are the same."""

    def __init__(self) -> None:
        self._actors = []

    def workers(self, worker: type, *arguments: Any) -> Workers:
        return _InProcessWorkers(worker(*arguments))


class Workers:
    """The actors of a pool as workers of one class, until they are dismissed."""

    def __init__(self, actors: list[Any], worker: type, *arguments: Any) -> None:
        self._actors = actors
        self._recipe = ray.put((next(_recipe_numbers), worker, arguments))
        for actor in actors:
            # Start now, while the caller prepares its arguments. If this fails, the first call makes the worker
            actor.become.options(max_task_retries=0).remote(self._recipe)

    def __len__(self) -> int:
        """Return the number of actors."""
        return len(self._actors)

    def share(self, value: Any) -> Any:
        """Return `value` in a form to pass to many calls. Every node receives it once."""
        return ray.put(value)

    def map(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call `method` once for each tuple of arguments, and yield the results in the order of the arguments.

        Call i goes to actor i mod size, so the work is shared out in the same way every time. Arguments are taken as
        actors get through them: at most two calls an actor are running or have results that the caller has not taken.
        If an actor or its node dies, its calls are made again on the actor that takes its place. Raises what the worker
        raised.
        """
        pending: deque[ray.ObjectRef] = deque()
        try:
            for position, given in enumerate(arguments):
                if len(pending) == 2 * len(self._actors):
                    yield ray.get(pending.popleft())
                actor = self._actors[position % len(self._actors)]
                pending.append(actor.call.remote(self._recipe, method, *given))
            while pending:
                yield ray.get(pending.popleft())
        except RayTaskError as error:
            raise error.cause from None  # raise the worker's error as if it had been raised here

    def graph(
        self, method: str, nodes: Sequence[Key], needs: Callable[[Key], Iterable[Key]], *shared: Any
    ) -> Iterator[tuple[Key, Any]]:
        """Call `method(node, *shared)` for each node once all that it needs is done; yield (node, result) as calls end.

        `needs(node)` gives the nodes that must be done before `node`; any that is not among `nodes` counts as done. An
        idle actor takes the first node in the given order that is ready. If an actor or its machine dies, its call is
        made again on the actor that takes its place. Raises what the worker raised.
        """
        todo = {node: set(needs(node)) for node in nodes}
        for waiting in todo.values():
            waiting.intersection_update(todo)
        idle, running = list(self._actors), dict[ray.ObjectRef, tuple[Key, Any]]()
        try:
            while todo or running:
                ready = itertools.islice((node for node, waiting in todo.items() if not waiting), len(idle))
                for node in list(ready):
                    actor = idle.pop()
                    running[actor.call.remote(self._recipe, method, node, *shared)] = node, actor
                    del todo[node]
                (finished, *_), _ = ray.wait(list(running))
                done, actor = running.pop(finished)
                result = ray.get(finished)
                idle.append(actor)
                for waiting in todo.values():
                    waiting.discard(done)
                yield done, result
        except RayTaskError as error:
            for call in running:  # no call still writes when the caller clears up
                ray.wait([call])
            raise error.cause from None  # raise the worker's error as if it had been raised here

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Dismiss the workers. The memory that they hold is freed, and the actors stay."""
        for actor in self._actors:
            actor.dismiss.options(max_task_retries=0).remote()


class _InProcessWorkers(Workers):
    """One worker, which makes all calls in this process."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def __len__(self) -> int:
        return 1

    def share(self, value: Any) -> Any:
        return value

    def map(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for given in arguments:
            yield self._call(method, *given)

    def graph(
        self, method: str, nodes: Sequence[Key], needs: Callable[[Key], Iterable[Key]], *shared: Any
    ) -> Iterator[tuple[Key, Any]]:
        graph = TopologicalSorter({node: set(needs(node)) & set(nodes) for node in nodes})
        for node in graph.static_order():
            yield node, self._call(method, node, *shared)

    def _call(self, method: str, *given: Any) -> Any:
        with one_blas_thread:  # an actor has one thread, too
            return getattr(self._worker, method)(*given)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._worker = None


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
