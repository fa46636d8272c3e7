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
    remedy: str = "fix λ and the exponents to save a copy"
    """Advice, besides the obvious, for where the plan does not fit."""
    remedy_settings: tuple[str, ...] = ("lambdas", "exponents")
    """The settings that the advice is about."""

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
                f"{self}, the memory limit is {gigabytes(limit)}: raise the limit, {self.remedy}, "
                f"or ingest fewer users or items.",
                *("memory_limit", *self.remedy_settings, "min_user_interactions", "k_core"),
            )
        if disk is not None and self.disk > disk:
            raise DoesNotFit(
                f"{self}, the disk has room for {gigabytes(disk)}: choose a place on a larger one, or {self.remedy}.",
                *("out", *self.remedy_settings),
            )


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
