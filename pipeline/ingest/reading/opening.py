"""Open a log: turn text into Parquet, read every footer, refuse or count bad files, and agree on the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infrec.pipeline.cluster import Report, map_tasks
from infrec.pipeline.ingest.reading.logs import (
    BadFile,
    Column,
    Format,
    FoundFile,
    LogFile,
    OnBadFile,
    Role,
    agree_on,
    read_footers,
)
from infrec.pipeline.ingest.reading.text import convert
from infrec.pipeline.storage import InputError, Location


@dataclass(frozen=True)
class Log:
    """A log that can be read."""

    files: tuple[LogFile, ...]
    columns: Mapping[Role, Column]
    """The columns to read: those of the needed roles, and the ratings if there are any."""
    bad_files: tuple[BadFile, ...]
    """The files that were passed over under `OnBadFile.SKIP`."""


def open_log(
    found: Sequence[FoundFile],
    names: Mapping[Role, str],
    needed: frozenset[Role],
    *,
    on_bad_file: OnBadFile,
    work: Location,
    report: Report,
) -> Log:
    """Open every file of a log whose columns have `names`. Every role in `needed` must have a column.

    The Parquet versions of text files are written to `work`. Raises `InputError`, which names the file and the column,
    if the files cannot be read as one log.
    """
    bad: list[BadFile] = []
    targets: list[Location | None] = [file.location for file in found]
    texts = [number for number, file in enumerate(found) if file.format != Format.PARQUET]
    conversions = map_tasks(_convert, texts, found, names, needed, work) if texts else ()
    for done, (number, outcome) in enumerate(conversions, start=1):
        targets[number] = outcome if isinstance(outcome, Location) else None
        if isinstance(outcome, BadFile):
            bad.append(outcome)
        report("convert text files", done, len(texts))

    files: list[LogFile] = []
    readable = [(target, str(file.location)) for target, file in zip(targets, found, strict=True) if target]
    for file in read_footers(readable, report):
        if isinstance(file, BadFile):
            bad.append(file)
        else:
            files.append(file)
    bad.sort(key=lambda file: file.source)
    if bad and on_bad_file == OnBadFile.ERROR:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise InputError(
            f"{bad[0].source} is {bad[0].problem}{more}; restore or remove it, or skip bad files.", "on_bad_file"
        )
    if not files:
        raise InputError(f"None of the log's {len(found)} files can be read: {bad[0].source} is {bad[0].problem}.")
    if any(names[Role.RATING] in file.columns for file in files):
        needed |= {Role.RATING}
    columns = {role: agree_on(files, role, names[role]) for role in Role if role in needed}
    return Log(tuple(files), columns, tuple(bad))


def _convert(
    number: int,
    found: Sequence[FoundFile],
    names: Mapping[Role, str],
    needed: frozenset[Role],
    work: Location,
) -> tuple[int, Location | BadFile]:
    """Return where the Parquet version of a text file lies, or the bad file: the body of a task."""
    target = work / f"text-{number:05d}.parquet"
    return number, convert(found[number], names, needed, target) or target
