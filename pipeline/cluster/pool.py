"""Pools of workers for numerics. A pool is the actors of a Ray session, or else threads of this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

Key = TypeVar("Key", bound=tuple[Any, ...])


class Pool(ABC):
    """Workers that a job starts once. They become workers of one class after another. `open_pool` opens one.

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
    """The workers of a pool as workers of one class, until they are dismissed.

    Each has one thread of BLAS. So the bytes of their results do not depend on their number, nor on what they are.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of workers."""

    @abstractmethod
    def share(self, value: Any) -> Any:
        """Return `value` in a form to pass to many calls. Every node receives it once."""

    @abstractmethod
    def map(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call `method` once for each tuple of arguments, and yield the results in the order of the arguments.

        Arguments are taken as workers get through them: at most two calls a worker are running or have results that the
        caller has not taken. Raises what the worker raised.
        """

    @abstractmethod
    def graph(
        self, method: str, nodes: Sequence[Key], needs: Callable[[Key], Iterable[Key]], *shared: Any
    ) -> Iterator[tuple[Key, Any]]:
        """Call `method(node, *shared)` for each node once all that it needs is done; yield (node, result) as calls end.

        `needs(node)` gives the nodes that must be done before `node`; any that is not among `nodes` counts as done. An
        idle worker takes a node that is ready. Raises what the worker raised.
        """

    @abstractmethod
    def dismiss(self) -> None:
        """Free the memory that the workers hold."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.dismiss()
