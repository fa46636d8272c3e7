"""Memory is planned, not discovered: what a job will allocate, said before it starts and refused if it cannot fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infrec.pipeline.storage import DoesNotFit

# Resident memory before any data is held, of the driver and of one CPU actor: Python, Ray, NumPy, SciPy, Arrow, JAX
DRIVER = 250_000_000
WORKER = 200_000_000
INTERACTION = 8
"""Bytes of an entry of a sparse matrix: a float32 and an int32."""
COPIES = 4
"""Of the train matrix in a process: as read, its transpose, the normalised rows, a product's temporary."""


@dataclass(frozen=True)
class Plan:
    """The parts of a job's peak memory, in bytes, over all processes of this machine but Ray's own."""

    job: str
    parts: Mapping[str, int]
    disk: int = 0
    """Bytes of files while it runs, beside what it publishes."""
    remedy: str = "fix --lambda and --exponents to save a copy"
    """What to do, besides the obvious, where it does not fit."""

    @property
    def peak(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in self.parts.items())
        files = f" and {gigabytes(self.disk)} of files" if self.disk else ""
        return f"{self.job} needs {gigabytes(self.peak)} ({parts}){files}"

    def require(self, limit: int | None, disk: int | None = None) -> None:
        """Raise `DoesNotFit`, with the numbers, if the plan needs more than `limit` of memory or `disk` of files."""
        if limit is not None and self.peak > limit:
            raise DoesNotFit(
                f"{self}, the memory limit is {gigabytes(limit)}: raise --memory-limit, {self.remedy}, "
                f"or ingest fewer users or items (--min-user-interactions, --k-core)."
            )
        if disk is not None and self.disk > disk:
            raise DoesNotFit(
                f"{self}, the disk of --out has room for {gigabytes(disk)}: choose an --out on a larger one, "
                f"or {self.remedy}."
            )


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
