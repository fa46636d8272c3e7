"""A pool of Ray actors for numerics: one a GPU where the cluster has them, else one a CPU with one thread each.

`InProcess` is such a pool without actors, for a process that is itself one of many (a trial of a sweep).
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
    """How many actors a pool has: one for each GPU of the cluster, else one for each CPU."""
    return _resource("GPU") or max(1, _resource("CPU"))


class Pool:
    """Actors that are workers of one class after another: what a job starts, it starts once.

    with Pool() as pool:
        with pool.workers(GramWorker, dataset) as gram:
            for tiles in gram.map("tile_row", [(i, ntk, exponents) for i in range(12)]):
                ...
    """

    def __init__(self) -> None:
        """Begin to start `pool_size()` actors; the first call waits for them."""
        gpus = _resource("GPU")
        options: dict[str, Any] = {
            "max_restarts": -1,
            "max_task_retries": -1,
            "num_cpus": 1,  # its threads are bounded by the session's WORKER_ENVIRONMENT
        }
        if gpus:
            options |= {"num_cpus": 0, "num_gpus": 1, "runtime_env": {"env_vars": _GPU_ENVIRONMENT}}
        remote = ray.remote(PoolActor)
        self._actors = [remote.options(**options).remote() for _ in range(pool_size())]

    def workers(self, worker: type, *arguments: Any) -> Workers:
        """Let every actor be a `worker(*arguments)` from now on, in place of what it was before."""
        return Workers(self._actors, worker, *arguments)

    def close(self) -> None:
        """End the actors; nothing happens the second time."""
        while self._actors:
            ray.kill(self._actors.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class InProcess(Pool):
    """This process in place of actors: it makes every call itself, to the same results."""

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
            # At once, while the caller gets ready; a call makes good where it failed
            actor.become.options(max_task_retries=0).remote(self._recipe)

    def __len__(self) -> int:
        """How many actors there are."""
        return len(self._actors)

    def share(self, value: Any) -> Any:
        """`value` as an argument of many calls: every node gets it once."""
        return ray.put(value)

    def map(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call `method` once for each tuple of arguments; results come in the order of the arguments.

        Call i goes to actor i mod size, so the work is shared out in the same way every time. Arguments are taken as
        actors get through them: at most two calls an actor are under way or waiting to be consumed. A call whose actor
        or node dies is made again on the actor that takes its place.
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
            raise error.cause from None  # what the worker raised, as if it had been raised here

    def graph(
        self, method: str, nodes: Sequence[Key], needs: Callable[[Key], Iterable[Key]], *shared: Any
    ) -> Iterator[tuple[Key, Any]]:
        """Call `method(node, *shared)` for every node once all that it needs is done; results come as they are made.

        An actor takes the first node in the given order that is ready. What a node needs and is not itself among the
        nodes counts as done. A call whose actor or node dies is made again on the actor that takes its place.
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
            for call in running:  # nothing is written any more when the caller clears up
                ray.wait([call])
            raise error.cause from None  # what the worker raised, as if it had been raised here

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Dismiss the workers: what they hold is freed, the actors stay."""
        for actor in self._actors:
            actor.dismiss.options(max_task_retries=0).remote()


class _InProcessWorkers(Workers):
    """One worker, at work in this process."""

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
        with one_blas_thread:  # as in an actor
            return getattr(self._worker, method)(*given)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._worker = None


class PoolActor:
    """Is whatever worker it is called as: made at the first call, and again after a restart."""

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
