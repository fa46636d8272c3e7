"""The pool of a process that does its work itself: small work, or one of many trials. No Ray is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

from infrec.kernels.tiles import one_blas_thread
from infrec.pipeline.cluster.pool import Pool, Workers


class ThreadPool(Pool):
    """Threads of this process."""

    def __init__(self, size: int = 1) -> None:
        self._threads = [ThreadPoolExecutor(1) for _ in range(size)]

    def workers(self, worker: type, *arguments: Any) -> Workers:
        return _ThreadWorkers(self._threads, worker, *arguments)

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        while self._threads:
            self._threads.pop().shutdown()


class _ThreadWorkers(Workers):
    """One worker a thread. The first call makes it."""

    def __init__(self, threads: list[ThreadPoolExecutor], worker: type, *arguments: Any) -> None:
        super().__init__(worker, len(threads))
        self._threads, self._make = threads, partial(worker, *arguments)
        self._workers: list[Any] = [None] * len(threads)

    def share(self, value: Any) -> Any:
        return value

    def dismiss(self) -> None:
        for worker, thread in enumerate(self._threads):
            thread.submit(self._workers.__setitem__, worker, None)

    def _submit(self, worker: int, method: str, *given: Any) -> Future[Any]:
        return self._threads[worker].submit(self._call, worker, method, *given)

    def _there(self) -> Sequence[int]:
        return range(len(self))

    def _wait(self, calls: Sequence[Future[Any]]) -> Future[Any]:
        done = wait(calls, return_when=FIRST_COMPLETED).done
        return next(call for call in calls if call in done)

    def _result(self, call: Future[Any]) -> Any:
        return call.result()

    def _lost(self, worker: int) -> None:
        raise AssertionError("a thread cannot be lost")

    def _abandon(self, calls: Iterable[Future[Any]]) -> None:
        wait([call for call in calls if not call.cancel()])

    def _call(self, worker: int, method: str, *given: Any) -> Any:
        with one_blas_thread:
            if self._workers[worker] is None:
                self._workers[worker] = self._make()
            return getattr(self._workers[worker], method)(*given)
