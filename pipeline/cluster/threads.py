"""The pool of a process that does its work itself: small work, or one of many trials. No Ray is needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from graphlib import TopologicalSorter
from queue import SimpleQueue
from typing import Any

from infrec.kernels.tiles import one_blas_thread
from infrec.pipeline.cluster.pool import Key, Pool, Workers


class ThreadPool(Pool):
    """Threads of this process. The results are those of actors."""

    def __init__(self, size: int = 1) -> None:
        self._threads = ThreadPoolExecutor(size)
        self._size = size

    def workers(self, worker: type, *arguments: Any) -> Workers:
        return _ThreadWorkers(self._threads, self._size, worker, *arguments)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


class _ThreadWorkers(Workers):
    """One worker a thread: like an actor, a worker is called by one thread at a time."""

    def __init__(self, threads: ThreadPoolExecutor, size: int, worker: type, *arguments: Any) -> None:
        self._threads, self._size = threads, size
        self._make: Callable[[], Any] = partial(worker, *arguments)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(size):
            self._idle.put(None)  # the first call makes it

    def __len__(self) -> int:
        return self._size

    def share(self, value: Any) -> Any:
        return value

    def map(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        pending: deque[Future[Any]] = deque()
        try:
            for given in arguments:
                if len(pending) == 2 * self._size:
                    yield pending.popleft().result()
                pending.append(self._threads.submit(self._call, method, *given))
            while pending:
                yield pending.popleft().result()
        finally:
            _abandon(pending)

    def graph(
        self, method: str, nodes: Sequence[Key], needs: Callable[[Key], Iterable[Key]], *shared: Any
    ) -> Iterator[tuple[Key, Any]]:
        known = set(nodes)
        graph = TopologicalSorter({node: known.intersection(needs(node)) for node in nodes})
        graph.prepare()
        running: dict[Future[Any], Key] = {}
        try:
            while graph.is_active():
                for node in graph.get_ready():
                    running[self._threads.submit(self._call, method, node, *shared)] = node
                for finished in wait(running, return_when=FIRST_COMPLETED).done:
                    node = running.pop(finished)
                    yield node, finished.result()
                    graph.done(node)
        finally:
            _abandon(running)

    def dismiss(self) -> None:
        while not self._idle.empty():
            self._idle.get()

    def _call(self, method: str, *given: Any) -> Any:
        worker = self._idle.get()
        try:
            with one_blas_thread:
                if worker is None:
                    worker = self._make()
                return getattr(worker, method)(*given)
        finally:
            self._idle.put(worker)


def _abandon(calls: Iterable[Future[Any]]) -> None:
    """Make none of the calls that have not begun, and wait for the others: none still writes when this returns."""
    wait([call for call in calls if not call.cancel()])
