"""The pool of a Ray session: one actor a GPU where the cluster has GPUs, else one a CPU with one thread each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from infrec.pipeline.cluster.pool import Pool, WorkerLost, Workers

_GPU_ENVIRONMENT = {"XLA_CLIENT_MEM_FRACTION": "0.9"}
_recipe_numbers = itertools.count()

_RELEASE_SECONDS = 2.0
"""The time in which Ray gives back the CPUs of tasks that have ended, and hears of nodes that are gone."""
_BEGIN_SECONDS = 20.0
"""The time that actors may take to start before those that are there begin without them."""
_PLACED_SECONDS = 900.0
"""The time after which a job gives up if no actor at all can be placed."""
_LOOK_SECONDS = 60.0
"""The longest time that a wait lasts before it looks at the clock."""
_AGAIN_SECONDS = 1.0
"""The time after which a lost actor is asked again."""


def number_of_actors() -> int:
    """Return how many actors a pool has: one for each GPU of the cluster or, if it has none, one for each CPU."""
    return _resource("GPU") or max(1, _resource("CPU"))


class ActorPool(Pool):
    """A pool of actors. Those that are not placed, or whose node is lost, take part once they are there."""

    def __init__(self) -> None:
        """Begin to start the actors: as many as the cluster has room for now."""
        self.actors = _start()
        self.there: list[int] = []
        self._come: dict[ray.ObjectRef, int] = {}
        """The questions that actors answer once they are there."""
        self._ask_at: dict[int, float] = {}
        """The times at which other actors are asked."""
        for number in range(len(self.actors)):
            self._await(number)
        self._begun = False

    def workers(self, worker: type, *arguments: Any) -> Workers:
        return _ActorWorkers(self, worker, *arguments)

    def close(self) -> None:
        while self.actors:
            ray.kill(self.actors.pop())

    def begin(self) -> None:
        """Wait, the first time, until all actors are there, or for some seconds: then the work is shared out evenly."""
        if not self._begun:
            self._begun = True
            come, _ = ray.wait(list(self._come), num_returns=len(self._come), timeout=_BEGIN_SECONDS)
            for one in come:
                self._note(one)

    def wait(self, calls: Sequence[ray.ObjectRef]) -> ray.ObjectRef | None:
        """Wait until a call has ended, and return it. Return None if instead an actor has come."""
        deadline = time.monotonic() + _PLACED_SECONDS
        while self.there or time.monotonic() < deadline:
            for number in [number for number, when in self._ask_at.items() if when <= time.monotonic()]:
                del self._ask_at[number]
                self._await(number)
            next_time = min(self._ask_at.values(), default=time.monotonic() + _LOOK_SECONDS)
            seconds = max(0.0, next_time - time.monotonic())
            if calls or self._come:
                ended, _ = ray.wait([*calls, *self._come], timeout=seconds)
                if ended and ended[0] not in self._come:
                    return ended[0]
                if ended and self._note(ended[0]):
                    return None
            else:
                time.sleep(seconds)
        raise RuntimeError(
            f"none of {len(self.actors)} workers was placed in {_PLACED_SECONDS / 60:.0f} minutes: other jobs hold the "
            f"cluster's CPUs and GPUs, or nodes are gone (`ray status` shows which)."
        )

    def lost(self, number: int) -> None:
        """Note that an actor is no longer there, and wait for the one that takes its place."""
        if number in self.there:
            self.there.remove(number)
            self._await(number)

    def _await(self, number: int) -> None:
        self._come[self.actors[number].ping.remote()] = number

    def _note(self, ping: ray.ObjectRef) -> bool:
        """Return whether the actor is there. One that was lost again, or is not back yet, is asked anew later."""
        number = self._come.pop(ping)
        try:
            ray.get(ping)
        except RayError:
            self._ask_at[number] = time.monotonic() + _AGAIN_SECONDS
            return False
        self.there = sorted([*self.there, number])
        return True


def _start() -> list[Any]:
    gpus = _resource("GPU")
    options: dict[str, Any] = {
        "max_restarts": -1,
        "max_task_retries": 0,  # `Workers` makes the calls of a lost actor again
        "num_cpus": 1,  # the session's WORKER_ENVIRONMENT bounds its threads
    }
    if gpus:
        options |= {"num_cpus": 0, "num_gpus": 1, "runtime_env": {"env_vars": _GPU_ENVIRONMENT}}
    remote = ray.remote(PoolActor)
    return [remote.options(**options).remote() for _ in range(_room("GPU" if gpus else "CPU"))]


def _room(kind: str) -> int:
    """Return how many actors of one CPU or GPU the cluster has room for beside what others hold, at least one."""
    deadline = time.monotonic() + _RELEASE_SECONDS
    while (free := int(ray.available_resources().get(kind, 0))) < _resource(kind) and time.monotonic() < deadline:
        time.sleep(0.05)
    return max(1, free)


class _ActorWorkers(Workers):
    def __init__(self, pool: ActorPool, worker: type, *arguments: Any) -> None:
        super().__init__(worker, len(pool.actors))
        self._pool = pool
        self._recipe = ray.put((next(_recipe_numbers), worker, arguments))
        for actor in pool.actors:
            actor.become.remote(self._recipe)  # now, while the caller prepares its arguments

    def share(self, value: Any) -> Any:
        return ray.put(value)

    def dismiss(self) -> None:
        for actor in self._pool.actors:
            actor.dismiss.remote()

    def _there(self) -> Sequence[int]:
        self._pool.begin()
        return self._pool.there

    def _submit(self, worker: int, method: str, *given: Any) -> ray.ObjectRef:
        return self._pool.actors[worker].call.remote(self._recipe, method, *given)

    def _wait(self, calls: Sequence[ray.ObjectRef]) -> ray.ObjectRef | None:
        return self._pool.wait(calls)

    def _result(self, call: ray.ObjectRef) -> Any:
        try:
            return ray.get(call)
        except RayTaskError as error:
            raise error.cause from None  # raise the worker's error as if it had been raised here
        except RayError as error:
            raise WorkerLost(str(error).partition("\n")[0]) from error

    def _lost(self, worker: int) -> None:
        self._pool.lost(worker)

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

    def ping(self) -> None:
        """Do nothing. Who gets an answer knows that the actor is there."""


def _resource(name: str) -> int:
    return int(ray.cluster_resources().get(name, 0))
