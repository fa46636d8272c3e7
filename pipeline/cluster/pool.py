"""Pools of workers for numerics, and how their calls are shared out. `open_pool` opens the pool of a session.

A pool is actors in a Ray session (`actors`), and else threads of this process (`threads`). Each worker has one thread
of BLAS. So the bytes of the results do not depend on the number of workers, nor on what they are.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

Key = TypeVar("Key", bound=tuple[Any, ...])

_MOST_ENDS = 3
"""The number of workers that a call may end. A machine may fail by chance, but not three times at the same call."""


class Pool(ABC):
    """Workers that a job starts once. They become workers of one class after another.

    with open_pool() as pool:
        with pool.workers(GramWorker, dataset) as gram:
            for tiles in gram.map("tile_row", [(i, ntk, exponents) for i in range(12)]):
                ...
    """

    @abstractmethod
    def workers(self, worker: type, *arguments: Any) -> Workers:
        """Make every worker a `worker(*arguments)` from now on, in place of the one that it was before."""

    @abstractmethod
    def close(self) -> None:
        """End the workers. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class WorkerLost(Exception):
    """A worker ended before its call had: its process was killed, or its node was lost."""


class Workers(ABC):
    """The workers of a pool as workers of one class, until they are dismissed.

    Calls go to workers that are there. A worker that has not been placed yet gets none, nor does one that was lost and
    has not come back. The calls of a lost worker are made again.
    """

    def __init__(self, worker: type, size: int) -> None:
        self.name, self._size = worker.__name__, size

    def __len__(self) -> int:
        """Return the number of workers. Not all of them need be there."""
        return self._size

    def map(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call `method` once for each tuple of arguments, and yield the results in the order of the arguments.

        Call i goes to worker i mod size if that one is there: then a worker sees the same data again. Arguments are
        taken as workers get through them: at most two calls a worker are running or have results that the caller has
        not taken. Raises what the worker raised, and `RuntimeError` if a call has ended three workers.
        """
        given, results = iter(arguments), dict[int, Any]()
        taken = passed_on = 0
        with _Calls(self, method) as calls:
            while True:
                for one in itertools.islice(given, max(0, 2 * len(self._there()) - (taken - passed_on))):
                    calls.make(taken, one, worker=taken % self._size)
                    taken += 1
                if passed_on == taken and self._there():
                    return  # nothing was left to take
                while passed_on not in results and (passed_on < taken or not self._there()):
                    results.update(calls.ended())
                if passed_on in results:
                    yield results.pop(passed_on)
                    passed_on += 1

    def graph(
        self, method: str, nodes: Sequence[Key], needs: Callable[[Key], Iterable[Key]], *shared: Any
    ) -> Iterator[tuple[Key, Any]]:
        """Call `method(node, *shared)` for each node once all that it needs is done; yield (node, result) as calls end.

        `needs(node)` gives the nodes that must be done before `node`; any that is not among `nodes` counts as done. An
        idle worker takes the first node in the given order that is ready. Raises as `map` does.
        """
        todo = {node: set(needs(node)) for node in nodes}
        for waiting in todo.values():
            waiting.intersection_update(todo)
        left = len(todo)
        with _Calls(self, method) as calls:
            while left:
                idle = calls.idle()
                ready = itertools.islice((node for node, waiting in todo.items() if not waiting), len(idle))
                for node, worker in zip(list(ready), idle, strict=False):
                    calls.make(node, (node, *shared), worker=worker)
                    del todo[node]
                for done, result in calls.ended().items():
                    for waiting in todo.values():
                        waiting.discard(done)
                    left -= 1
                    yield done, result

    @abstractmethod
    def share(self, value: Any) -> Any:
        """Return `value` in a form to pass to many calls. Every node receives it once."""

    @abstractmethod
    def dismiss(self) -> None:
        """Free the memory that the workers hold. Those who are called again are made anew."""

    @abstractmethod
    def _there(self) -> Sequence[int]:
        """Return the numbers of the workers that are there."""

    @abstractmethod
    def _submit(self, worker: int, method: str, *given: Any) -> Any:
        """Call a method of this worker, after its calls before this one. Return the call."""

    @abstractmethod
    def _wait(self, calls: Sequence[Any]) -> Any:
        """Wait until a call has ended, and return it. Return None if instead the workers that are there have changed.

        Raises `RuntimeError` if no worker comes.
        """

    @abstractmethod
    def _result(self, call: Any) -> Any:
        """Return the result of a call that has ended. Raises what the worker raised, or `WorkerLost`."""

    @abstractmethod
    def _lost(self, worker: int) -> None:
        """Note that a worker is no longer there."""

    @abstractmethod
    def _abandon(self, calls: Iterable[Any]) -> None:
        """Wait until none of the calls is running: none still writes when the caller clears up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.dismiss()


class _Call(NamedTuple):
    number: int
    """Calls are numbered as they are made."""
    key: Any
    given: tuple[Any, ...]
    worker: int


class _Calls:
    """The running calls of a method. Those of lost workers are made again, by workers that are there."""

    def __init__(self, workers: Workers, method: str) -> None:
        self._workers, self._method = workers, method
        self._running: dict[Any, _Call] = {}
        self._again: list[_Call] = []
        self._ends: Counter[Any] = Counter()
        self._numbers = itertools.count()

    def make(self, key: Any, given: tuple[Any, ...], *, worker: int) -> None:
        """Make a call. If this worker is not there, the least busy one makes it."""
        there = self._workers._there()
        if worker not in there:
            load = Counter(call.worker for call in self._running.values())
            worker = min(there, key=lambda one: load[one])
        call = _Call(next(self._numbers), key, given, worker)
        self._running[self._workers._submit(worker, self._method, *given)] = call

    def idle(self) -> list[int]:
        """Return the workers that are there and make no call, once the calls of lost workers have been made again."""
        self._make_again()
        busy = {call.worker for call in self._running.values()}
        return [worker for worker in self._workers._there() if worker not in busy]

    def ended(self) -> dict[Any, Any]:
        """Wait until something happens. Return the result of the call that has ended, if it is that, by its key."""
        self._make_again()
        ended = self._workers._wait(list(self._running))
        if ended is None:
            return {}
        call = self._running.pop(ended)
        try:
            return {call.key: self._workers._result(ended)}
        except WorkerLost as error:
            self._workers._lost(call.worker)
            self._blame(call, error)
            self._again.append(call)
            return {}

    def _make_again(self) -> None:
        while self._again and self._workers._there():
            call = self._again.pop(0)
            self.make(call.key, call.given, worker=call.worker)

    def _blame(self, lost: _Call, error: WorkerLost) -> None:
        """Raise `RuntimeError` if this call was the one that the worker was making, and it is the third time."""
        if any(call.worker == lost.worker and call.number < lost.number for call in self._running.values()):
            return
        self._ends[lost.key] += 1
        if self._ends[lost.key] == _MOST_ENDS:
            name = f"{self._workers.name}.{self._method}"
            raise RuntimeError(f"{name}, call {lost.key}, has ended its worker {_MOST_ENDS} times: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception):
            self._workers._abandon(self._running)
