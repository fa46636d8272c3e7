"""Killing an actor, or a driver, in the middle of its work, and what is left then."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil

from infrec.pipeline.cluster.actors import PoolActor


class Kill:
    """A `Report` that kills one actor of a pool, once, as soon as a phase has begun to make progress."""

    def __init__(self, phase: str) -> None:
        self._phase = phase
        self.killed = 0

    def __call__(self, phase: str, done: int, total: int, detail: str = "") -> None:
        if phase.startswith(self._phase) and not self.killed:
            assert done < total
            victim = next(process for process, title in titles_below().items() if PoolActor.__name__ in title)
            os.kill(victim.pid, signal.SIGKILL)
            self.killed = victim.pid


def titles_below() -> dict[psutil.Process, str]:
    """The processes that this one has started, and those below them, with the names that Ray gives its workers."""
    titles: dict[psutil.Process, str] = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # an idle worker ends when it likes
            titles[process] = process.name()
    return titles


def finished_parts(out: Path) -> dict[str, int]:
    """The part files of an unfinished artefact that have a receipt, and when each was written."""
    staging = out.parent / f".{out.name}.partial"
    names = [receipt.stem for receipt in (staging / "_work").glob("part-*.json")]
    return {name: (staging / name).stat().st_mtime_ns for name in names}
