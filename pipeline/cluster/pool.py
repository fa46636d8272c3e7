"""Pools of workers for numerics, and how their calls are shared out. `open_pool` opens the pool of a session.

A pool is actors in a Ray session (`actors`), and else threads of this process (`threads`). Each worker has one thread
of BLAS. So the bytes of the results do not depend on the number of workers, nor on what they are.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

Key = TypeVar("Key", bound=tuple[Any, ...])


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


class Workers(ABC):
    """The workers of a pool as workers of one class, until they are dismissed."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        """Return the number of workers."""
        return self._size

    def map(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call `method` once for each tuple of arguments, and yield the results in the order of the arguments.

        Call i goes to worker i mod size, so the work is shared out in the same way every time. Arguments are taken as
        workers get through them: at most two calls a worker are running or have results that the caller has not taken.
        Raises what the worker raised.
        """
        pending: deque[Any] = deque()
        try:
            for position, given in enumerate(arguments):
                if len(pending) == 2 * self._size:
                    yield self._result(pending.popleft())
                pending.append(self._submit(position % self._size, method, *given))
            while pending:
                yield self._result(pending.popleft())
        except Exception:
            self._abandon(pending)
            raise

    def graph(
        self, method: str, nodes: Sequence[Key], needs: Callable[[Key], Iterable[Key]], *shared: Any
    ) -> Iterator[tuple[Key, Any]]:
        """Call `method(node, *shared)` for each node once all that it needs is done; yield (node, result) as calls end.

        `needs(node)` gives the nodes that must be done before `node`; any that is not among `nodes` counts as done. An
        idle worker takes the first node in the given order that is ready. Raises what the worker raised.
        """
        todo = {node: set(needs(node)) for node in nodes}
        for waiting in todo.values():
            waiting.intersection_update(todo)
        idle, running = list(range(self._size)), dict[Any, tuple[Key, int]]()
        try:
            while todo or running:
                ready = itertools.islice((node for node, waiting in todo.items() if not waiting), len(idle))
                for node in list(ready):
                    worker = idle.pop()
                    running[self._submit(worker, method, node, *shared)] = node, worker
                    del todo[node]
                finished = self._first_ended(list(running))
                done, worker = running.pop(finished)
                result = self._result(finished)
                idle.append(worker)
                for waiting in todo.values():
                    waiting.discard(done)
                yield done, result
        except Exception:
            self._abandon(running)
            raise

    @abstractmethod
    def share(self, value: Any) -> Any:
        """Return `value` in a form to pass to many calls. Every node receives it once."""

    @abstractmethod
    def dismiss(self) -> None:
        """Free the memory that the workers hold. Those who are called again are made anew."""

    @abstractmethod
    def _submit(self, worker: int, method: str, *given: Any) -> Any:
        """Call a method of the worker of this number, after its calls before this one. Return the call."""

    @abstractmethod
    def _result(self, call: Any) -> Any:
        """Wait until the call has ended, and return its result. Raises what the worker raised."""

    @abstractmethod
    def _first_ended(self, calls: Sequence[Any]) -> Any:
        """Wait until one of the calls has ended, and return it."""

    @abstractmethod
    def _abandon(self, calls: Iterable[Any]) -> None:
        """Wait until none of the calls is running: none still writes when the caller clears up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.dismiss()
