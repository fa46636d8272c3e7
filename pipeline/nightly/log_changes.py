"""The files of a log that grows, and their changes since they were last folded into a dataset.

A file with the same size and time of change as before counts as unchanged. Otherwise its checksum decides. A file that
changed is only asked whether it holds more than before. If it does, its earlier rows are assumed to be still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from infrec.pipeline.ingest import Format, FoundFile, sha256_of
from infrec.pipeline.storage import InputError

_AT_ONCE = 8  # threads wait for storage, and hashing releases Python's lock


@dataclass(frozen=True)
class SeenFile:
    """A file of the log as it was when it was looked at."""

    stamp: str
    """The size and the time of the last change."""
    size: int
    rows: int | None
    """None for text, where only reading the file would tell."""
    sha256: str

    @classmethod
    def of(cls, file: FoundFile) -> Self:
        """Read the whole file, and return its record."""
        digest, size = sha256_of(file.location)
        return cls(file.stamp, size, _rows(file), digest)

    def holds_more_than(self, earlier: SeenFile) -> bool:
        """Return whether the file has more rows than before or, where rows are not known, more bytes."""
        if self.rows is None or earlier.rows is None:
            return self.size > earlier.size
        return self.rows > earlier.rows


@dataclass(frozen=True)
class Changes:
    """The difference between a log now and the files that were folded in."""

    now: Mapping[str, SeenFile]
    """Every file of the log, by its address."""
    new: Sequence[str]
    grown: Sequence[str]
    rewritten: Sequence[str]
    """The files with other bytes, but no more rows than before. Something that was folded in may be gone."""
    vanished: Sequence[str]

    @classmethod
    def between(cls, before: Mapping[str, SeenFile], files: Sequence[FoundFile]) -> Self:
        """Compare the files found now with the files `before`."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            looked_at = pool.map(lambda file: _looked_at(file, before.get(str(file.location))), files)
        now = {str(file.location): partition for file, partition in zip(files, looked_at, strict=True)}
        changed = [name for name in now if name in before and now[name].sha256 != before[name].sha256]
        grown = [name for name in changed if now[name].holds_more_than(before[name])]
        return cls(
            now,
            new=[name for name in now if name not in before],
            grown=grown,
            rewritten=[name for name in changed if name not in grown],
            vanished=[name for name in before if name not in now],
        )

    @property
    def to_fold(self) -> list[str]:
        """The files with rows that the dataset may lack."""
        return [*self.new, *self.grown, *self.rewritten]

    @property
    def took_away(self) -> bool:
        """Whether something that was folded in may be gone. Then the dataset has to be made anew."""
        return bool(self.rewritten or self.vanished)

    def __bool__(self) -> bool:
        return bool(self.to_fold or self.vanished)

    def refuse_losses(self) -> None:
        """Raise `InputError` if a file is gone or was rewritten, which never happens to a log that only grows."""
        for names, what in ((self.vanished, "gone"), (self.rewritten, "rewritten with no more rows than it had")):
            if names:
                more = f", and so are {len(names) - 1} more files of the log" if len(names) > 1 else ""
                raise InputError(
                    f"{names[0]} is {what}{more}, but folded into the summary: restore it, "
                    f"or allow a rewrite, which makes the dataset anew from the log as it is.",
                    "allow_rewrite",
                )


def to_json(partitions: Mapping[str, SeenFile]) -> dict[str, Any]:
    return {name: asdict(partition) for name, partition in partitions.items()}


def from_json(body: Mapping[str, Any]) -> dict[str, SeenFile]:
    # States of earlier versions call the stamp a fingerprint
    return {
        name: SeenFile(**{"stamp" if field == "fingerprint" else field: value for field, value in entry.items()})
        for name, entry in body.items()
    }


def _looked_at(file: FoundFile, before: SeenFile | None) -> SeenFile:
    return before if before and before.stamp == file.stamp else SeenFile.of(file)


def _rows(file: FoundFile) -> int | None:
    if file.format != Format.PARQUET:
        return None
    try:
        with file.location.filesystem.open_input_file(file.location.path) as stream:
            return int(pq.read_metadata(stream).num_rows)
    except (pa.ArrowException, OSError):
        return None  # ingest will report the fault of the file
