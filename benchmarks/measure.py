"""The benchmarks share this: the peak memory of a process tree, and where a figure was measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy  # noqa: F401  (loads the OpenBLAS that is asked about)
import psutil
from threadpoolctl import threadpool_info

WHILE_TIMED = 1.0
"""Seconds between samples where a run of minutes is timed as well: each takes some 20 ms, and holds up processes."""


@dataclass
class Peak:
    """Proportional set size (shared pages counted once) of this process and all below it, in bytes."""

    baseline: int
    """When the measurement began."""
    rays_own: int
    """The part of it that Ray's own processes had, which run neither the job nor its workers."""
    highest: int

    @property
    def above_baseline(self) -> int:
        return self.highest - self.baseline

    @property
    def of_the_job(self) -> int:
        """The driver and its workers, with Python and all libraries: what a plan is about."""
        return self.highest - self.rays_own


@contextmanager
def peak_memory(seconds: float = 0.1) -> Iterator[Peak]:
    """Samples the process tree's memory while the block runs, so many seconds apart."""
    now = tree_memory()
    peak, stop = Peak(now, now - tree_memory(_is_of_the_job), now), threading.Event()

    def sample() -> None:
        while not stop.wait(seconds):
            peak.highest = max(peak.highest, tree_memory())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        stop.set()
        sampler.join()


def tree_memory(counts: Callable[[psutil.Process], bool] = lambda process: True) -> int:
    """Proportional set size of this process and those of its descendants that count, in bytes."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            if counts(process):
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except (OSError, psutil.Error):
            continue  # ended since it was listed
    return 1024 * total


def _is_of_the_job(process: psutil.Process) -> bool:
    """This process and Ray's workers; not Ray's servers and agents, some of which call themselves like workers."""
    title = (process.cmdline() or [""])[0]
    return process.pid == os.getpid() or (title.startswith("ray::") and not title.endswith("Agent"))


def environment() -> dict[str, Any]:
    """Return the place and the versions that a figure was measured with."""
    packages = ("ray", "jax", "numpy", "scipy", "pyarrow")
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "openblas_kernel": threadpool_info()[0]["architecture"],
        **{package: version(package) for package in packages},
    }


def in_subprocess(module: str, *arguments: str) -> dict[str, Any]:
    """Run `python -m module arguments` by itself and return the JSON object on its last line; errors are shown."""
    command = [sys.executable, "-m", module, *arguments]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(finished.stdout.splitlines()[-1]))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
