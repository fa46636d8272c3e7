"""The first pass over all pieces of the log: Ray Data runs it, or threads of this process where there is no Ray."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

from infrec.pipeline.cluster import Report, available_cpus, in_ray_session, map_threads
from infrec.pipeline.ingest.reading.pieces import Piece
from infrec.pipeline.ingest.shuffle.partition import Dropped, Partitioning, partition
from infrec.pipeline.storage import InputError, Location

_PIECES_A_BLOCK = 8  # Ray Data waits up to 0.2 s between two blocks of a CPU
_BLOCKS_A_CPU = 4  # the least number, if there are enough pieces: then all CPUs have work to the end

_Outcome = Mapping[str, int] | InputError | OSError
"""The number of a piece's rows, and that of dropped rows by reason, or else the error that stops the job."""


def partition_all(pieces: Sequence[Piece], how: Partitioning, report: Report) -> Counter[str]:
    """Partition every piece, and return the number of dropped rows by reason.

    However this ends, no piece is worked on any more afterwards.
    """
    total = sum(piece.rows for piece in pieces)
    done: Counter[str] = Counter()
    report("read rows", 0, total)
    with _outcomes(pieces, how) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            done.update(outcome)
            report("read rows", done["rows"], total)
    del done["rows"]
    return done


@contextmanager
def _outcomes(pieces: Sequence[Piece], how: Partitioning) -> Iterator[Iterable[_Outcome]]:
    """Yield the outcomes of the pieces as they come. Those that have not begun when the block ends are left out."""
    going = how.work / "going"
    going.write(b"")
    told: SimpleQueue[_Outcome | None] = SimpleQueue()
    run = _run_ray_data if in_ray_session() else _run_threads
    # In a thread, Ray Data sees neither Ctrl-C nor our errors. It would cancel its tasks, and Ray ends this process if
    # one of them is just finishing (github.com/ray-project/ray/pull/54798 mended a part of that)
    with ThreadPoolExecutor(1) as thread:
        try:
            running = thread.submit(run, pieces, how, going, told.put)
            running.add_done_callback(lambda _: told.put(None))
            yield iter(told.get, None)
            running.result()
        finally:
            going.remove()


def _run_threads(pieces: Sequence[Piece], how: Partitioning, going: Location, tell: Callable[[_Outcome], None]) -> None:
    for outcome in map_threads(_partition_if, pieces, how, going):
        tell(outcome)


def _run_ray_data(
    pieces: Sequence[Piece], how: Partitioning, going: Location, tell: Callable[[_Outcome], None]
) -> None:
    import ray.data  # the import takes a second, which the processes of the other passes are spared

    def task(row: Mapping[str, Piece]) -> dict[str, bytes]:
        return {"outcome": pickle.dumps(_partition_if(row["item"], how, going))}

    _quieten_ray_data()
    if pieces:
        blocks = max(len(pieces) // _PIECES_A_BLOCK, min(len(pieces), _BLOCKS_A_CPU * available_cpus()))
        for row in ray.data.from_items(list(pieces), override_num_blocks=blocks).map(task).iter_rows():
            tell(pickle.loads(row["outcome"]))


def _partition_if(piece: Piece, how: Partitioning, going: Location) -> _Outcome:
    """Partition a piece if the file `going` still exists.

    An error is returned as an outcome: Ray Data would wrap it in its own advice.
    """
    try:
        dropped = partition(piece, how) if going.exists() else None
    except (InputError, OSError) as error:
        return error
    return {} if dropped is None else {"rows": piece.rows, **{reason: dropped[reason] for reason in Dropped}}


def _quieten_ray_data() -> None:
    """Leave Ray Data's messages to its log file: the console is for our progress and our sentences."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)
