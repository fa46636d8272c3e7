"""Plans of memory. A job says what it will allocate before it starts, and is refused if that cannot fit.

Memory is planned, not discovered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infrec.pipeline.storage import DoesNotFit

# Resident bytes of the driver and of one CPU actor before they hold data: Python, Ray, NumPy, SciPy, Arrow and JAX
DRIVER = 250_000_000
WORKER = 200_000_000
INTERACTION = 8
"""Bytes of an entry of a sparse matrix: a float32 value and an int32 index."""
COPIES = 4
"""Copies of the train matrix in a process: as read, its transpose, the normalised rows, and a product's temporary."""


@dataclass(frozen=True)
class Plan:
    """The peak memory of a job, over all processes of this machine but Ray's own."""

    job: str
    parts: Mapping[str, int]
    """The bytes of each part of the peak, by the name of that part."""
    remedy: str
    """Advice for a plan that does not fit, besides the obvious advice."""
    remedy_settings: tuple[str, ...]
    """The settings that this advice is about."""
    disk: int = 0
    """Bytes of the files that the job has while it runs, besides those that it publishes."""

    @property
    def peak(self) -> int:
        """The bytes of all parts together."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in self.parts.items())
        files = f" and {gigabytes(self.disk)} of files" if self.disk else ""
        return f"{self.job} needs {gigabytes(self.peak)} ({parts}){files}"

    def require(self, limit: int | None, disk: int | None = None) -> None:
        """Raise `DoesNotFit`, with the numbers, if the plan needs too much.

        It may need `limit` bytes of memory and `disk` bytes of files. None: as much as it likes.
        """
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
    """Return a number of bytes as text, such as "1.50 GB"."""
    return f"{size / 1e9:.2f} GB"
