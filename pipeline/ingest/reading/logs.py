"""The files of interaction logs: find them, read their footers, and agree on their columns.

A log is any number of files, directories, globs and hive-partitioned trees, local or in an object store. Text
formats are first turned into Parquet (`pipeline.ingest.reading.text`). All later steps know Parquet only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from urllib.parse import unquote

import fsspec.implementations.arrow
import pyarrow as pa
import pyarrow.parquet as pq

from infrec.pipeline.cluster import Report
from infrec.pipeline.ingest.reading.timestamps import is_time
from infrec.pipeline.storage import InputError, Location

_FOOTERS_AT_ONCE = 16  # reading a footer waits for storage and computes nothing
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


class Format(StrEnum):
    """The format of a log's files."""

    AUTO = "auto"
    """The file's suffix decides."""
    PARQUET = "parquet"
    CSV = "csv"
    """Comma-separated, with a header. The file may be compressed (.csv.gz)."""
    MOVIELENS = "movielens"
    """`ratings.dat` (separated by `::`) or `u.data` (by tabs), without a header: user, item, rating, timestamp."""
    INTER = "inter"
    """RecBole's format: tab-separated, with header fields such as `user_id:token`."""


_SUFFIXES = {
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".parq": Format.PARQUET,
    ".csv": Format.CSV,
    ".csv.gz": Format.CSV,
    ".dat": Format.MOVIELENS,
    "u.data": Format.MOVIELENS,
    ".inter": Format.INTER,
}


class OnBadFile(StrEnum):
    """The treatment of a bad file: it is an error, or it is skipped."""

    ERROR = "error"
    SKIP = "skip"


class Role(StrEnum):
    """The meaning of a column. The values name the columns wherever a log has been read."""

    USER = "user"
    ITEM = "item"
    RATING = "rating"
    TIMESTAMP = "timestamp"
    SPLIT = "split"


@dataclass(frozen=True)
class FoundFile:
    """A file of the log before it is opened."""

    location: Location
    format: Format
    name: str
    """The path below the address at which the file was found, or its own name if the address was the file's."""
    size: int
    """Bytes."""
    stamp: str
    """The file's size and the time of its last change."""


@dataclass(frozen=True)
class LogFile:
    """A Parquet file of the log whose footer was read and makes sense."""

    location: Location
    source: str
    """The file's name for the user: its own path, or that of the text file that it was made from."""
    schema: pa.Schema
    row_groups: tuple[int, ...]
    """The number of rows of each row group."""
    partition: Mapping[str, str | None]
    """The Hive partition columns, from `key=value` directories on the file's path."""

    @property
    def columns(self) -> list[str]:
        return [*self.schema.names, *(key for key in self.partition if key not in self.schema.names)]


@dataclass(frozen=True)
class BadFile:
    """A file of the log that cannot be read as a file of its format."""

    source: str
    problem: str


@dataclass(frozen=True)
class Column:
    """A column that ingest reads: its name in the files and the one type that it is read as."""

    name: str
    type: pa.DataType


def find_files(logs: Sequence[str | FoundFile], format: Format) -> list[FoundFile]:
    """Return every file of the log once, in the order of the arguments and of the paths below them.

    Hidden files (`_SUCCESS`, `.crc`) are left out. So are files of unknown suffix below a directory, under
    `Format.AUTO`. Files that were found before are taken as they were then. Raises `InputError` for a path that does
    not exist and for one without any log file.
    """
    found: dict[str, FoundFile] = {}
    for log in logs:
        if isinstance(log, FoundFile):
            found.setdefault(str(log.location), log)
            continue
        matches = _matches(log)
        if not matches:
            raise InputError(f"There is no log at {log}.")
        below = [(match, *file) for match in matches for file in _log_files(match, format)]
        if not below:
            raise InputError(f"There is no log file under {log} of the format {format}.", "format")
        for root, location, kind in below:
            name = location.path.removeprefix(root.path).strip("/") or location.name
            info = location.info()
            stamp = f"{info.size} bytes, changed at {info.mtime_ns} ns"
            found.setdefault(str(location), FoundFile(location, kind, name, info.size, stamp))
    return list(found.values())


def names_of(bad: Sequence[BadFile], found: Sequence[FoundFile]) -> list[str]:
    """Return the names of bad files. The names do not say where the log lies."""
    names = {str(file.location): file.name for file in found}
    return [names[file.source] for file in bad]


def read_footers(files: Sequence[tuple[Location, str]], report: Report) -> list[LogFile | BadFile]:
    """Read the footer of every Parquet file, in the order given. A file comes with its name for the user."""
    opened: list[LogFile | BadFile] = []
    report("footers", 0, len(files))
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        for file in pool.map(lambda pair: _read_footer(*pair), files):
            opened.append(file)
            report("footers", len(opened), len(files))
    return opened


def agree_on(files: Sequence[LogFile], role: Role, name: str) -> Column:
    """Return the column `name` of all files, with the one type that holds its values in every file.

    Integers of different widths become int64, strings of any layout become string, and floats become double. Raises
    `InputError` if a file lacks the column, if it cannot have the role, or if the types do not go together.
    """
    types: dict[pa.DataType, LogFile] = {}
    for file in files:
        types.setdefault(_column_type(file, role, name), file)
    known = [type_ for type_ in types if type_ != pa.null()]

    def unite(left: pa.DataType, right: pa.DataType) -> pa.DataType:
        united = common_type(left, right)
        if united is None:
            raise InputError(
                f"The log's files differ in column {name}: it is {left} in {types[left].source} "
                f"and {right} in {types[right].source}."
            )
        types.setdefault(united, types[right])
        return united

    return Column(name, reduce(unite, known) if known else pa.int64())


def require(name: str, role: Role, columns: Iterable[str], source: str) -> None:
    """Raise `InputError`, which lists the columns that there are, if `name` is not one of them."""
    columns = list(columns)
    if name not in columns:
        setting = "split_column" if role == Role.SPLIT else role.value
        raise InputError(f"{source} has no column {name}, it has: {', '.join(columns) or 'none'}.", setting)


def _matches(log: str) -> list[Location]:
    """Return the existing paths that an argument stands for: itself, or the matches of its glob."""
    location = Location.of(log)
    if location.exists():
        return [location]
    if not any(wildcard in location.path for wildcard in "*?["):
        return []
    globber = fsspec.implementations.arrow.ArrowFSWrapper(location.filesystem)
    return [Location(location.filesystem, path) for path in sorted(globber.glob(location.path))]


def _log_files(root: Location, format: Format) -> list[tuple[Location, Format]]:
    """Return the log files at or below a path, with their formats."""
    if root.is_directory():
        shown = [location for location in root.files() if not _is_hidden(location, root)]
        kinds = [_format_of(location) if format == Format.AUTO else format for location in shown]
        return [(location, kind) for location, kind in zip(shown, kinds, strict=True) if kind]
    kind = _format_of(root) if format == Format.AUTO else format
    if kind is None:
        raise InputError(f"{root} has no suffix that infrec knows: name its format to ingest it.", "format")
    return [(root, kind)]


def _is_hidden(location: Location, root: Location) -> bool:
    """Whether a file is hidden. As in Hive and Spark, names that begin with `_` or `.` are, except for partition
    directories (`_day=1`)."""
    below = location.path.removeprefix(root.path).strip("/").split("/")
    return below[-1] == "manifest.json" or any(
        part.startswith(".") or (part.startswith("_") and "=" not in part) for part in below
    )


def _format_of(location: Location) -> Format | None:
    name = location.name.lower()
    return next((format for suffix, format in _SUFFIXES.items() if name.endswith(suffix)), None)


def _read_footer(location: Location, source: str) -> LogFile | BadFile:
    try:
        with location.filesystem.open_input_file(location.path) as stream:
            footer = pq.read_metadata(stream)
            schema = footer.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        size = location.info().size
        return BadFile(source, f"not a whole Parquet file ({size} bytes): {str(error).splitlines()[0].rstrip('.')}")
    rows = tuple(footer.row_group(index).num_rows for index in range(footer.num_row_groups))
    return LogFile(location, source, schema, rows, _hive_partition(location.path))


def _hive_partition(path: str) -> dict[str, str | None]:
    pairs = (directory.split("=", 1) for directory in path.split("/")[:-1] if "=" in directory)
    return {key: None if value == _HIVE_NULL else unquote(value) for key, value in pairs}


def _column_type(file: LogFile, role: Role, name: str) -> pa.DataType:
    """Return the type as which a file's column is read in its role."""
    require(name, role, file.columns, file.source)
    if name not in file.schema.names:
        value = file.partition[name]
        if role == Role.SPLIT or value is None or not value.removeprefix("-").isdecimal():
            return pa.null() if value is None else pa.string()
        return pa.int64()
    type_ = file.schema.field(name).type
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    if _is_string(plain):
        plain = pa.string()
    if plain != pa.null() and not _can_be(role, plain):
        wanted = {
            Role.RATING: "numbers",
            Role.TIMESTAMP: "numbers, timestamps or dates",
            Role.SPLIT: "strings",
        }.get(role, "integers or strings")
        raise InputError(f"Column {name} of {file.source} is {type_}: the {role} column must hold {wanted}.")
    return pa.float64() if role == Role.RATING and plain != pa.null() else plain


def _can_be(role: Role, type_: pa.DataType) -> bool:
    match role:
        case Role.RATING:
            number = pa.types.is_integer(type_) or pa.types.is_floating(type_)
            return bool(number or pa.types.is_decimal(type_) or pa.types.is_boolean(type_))
        case Role.TIMESTAMP:
            return is_time(type_)
        case Role.SPLIT:
            return bool(type_ == pa.string())
        case _:
            return bool(type_ == pa.string() or pa.types.is_integer(type_))


def _is_string(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return the type as which values of both types are read, or None if they do not go together."""
    if left == right:
        return left
    if pa.types.is_integer(left) and pa.types.is_integer(right) and pa.uint64() not in (left, right):
        return pa.int64()
    if pa.types.is_floating(left) and pa.types.is_floating(right):
        return pa.float64()
    return None
