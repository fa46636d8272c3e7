"""Pieces of a log. One task reads one piece: some row groups of some files, about a million rows.

The cut depends on the files and the configured piece size alone, never on how many workers there are. A row group
larger than a piece is a piece of its own. It is read as a stream, so that the piece size bounds the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from infrec.pipeline.ingest.reading.logs import Column, LogFile, OnBadFile, Role
from infrec.pipeline.storage import InputError

_BUFFER_BYTES = 1 << 20  # for each column: a row group of any size is read as a stream
_MAX_SLICES = 64  # in a piece, at most: thousands of small files still make enough pieces to be read in parallel


@dataclass(frozen=True)
class Slice:
    """Some row groups of one file."""

    file: LogFile
    row_groups: range

    @property
    def rows(self) -> int:
        return sum(self.file.row_groups[self.row_groups.start : self.row_groups.stop])


@dataclass(frozen=True)
class Piece:
    """The rows that one task reads. It reads them as `parts` tables, numbered from `first_part` through all pieces."""

    slices: tuple[Slice, ...]
    first_part: int
    parts: int

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.slices)


def cut(files: Sequence[LogFile], piece_rows: int) -> list[Piece]:
    """Cut all row groups, in order, into pieces of at most `piece_rows` rows or of one row group."""
    pieces: list[Piece] = []
    slices: list[Slice] = []
    rows = 0

    def close() -> None:
        nonlocal slices, rows
        if rows:
            first = pieces[-1].first_part + pieces[-1].parts if pieces else 0
            pieces.append(Piece(tuple(slices), first, -(-rows // piece_rows)))
        slices, rows = [], 0

    for file in files:
        for group, group_rows in enumerate(file.row_groups):
            if rows + group_rows > piece_rows:
                close()
            if slices and slices[-1].file is file:
                slices[-1] = Slice(file, range(slices[-1].row_groups.start, group + 1))
            else:
                if len(slices) == _MAX_SLICES:
                    close()
                slices.append(Slice(file, range(group, group + 1)))
            rows += group_rows
    close()
    return pieces


def read(
    piece: Piece, columns: Mapping[Role, Column], *, piece_rows: int, on_bad_file: OnBadFile
) -> Iterator[pa.Table]:
    """Yield the piece's rows as `piece.parts` tables of `piece_rows` rows each. The last table has the rows left over.

    Columns are named by role and have the types of `columns`. Strings come dictionary-encoded. Under `OnBadFile.SKIP`
    the rows in damaged pages are missing from the last tables. Otherwise a damaged page raises `InputError`.
    """
    held = [_empty(columns)]
    rows = 0
    left = piece.parts
    for part in piece.slices:
        for table in _read_slice(part, columns, piece_rows, on_bad_file):
            held.append(table)
            rows += len(table)
            while rows >= piece_rows:
                joined = pa.concat_tables(held)
                yield joined[:piece_rows]
                held = [joined[piece_rows:]]
                rows -= piece_rows
                left -= 1
    for _ in range(left):
        yield pa.concat_tables(held)
        held = [_empty(columns)]


def _read_slice(
    part: Slice, columns: Mapping[Role, Column], batch_rows: int, on_bad_file: OnBadFile
) -> Iterator[pa.Table]:
    file = part.file
    stored = {role: column for role, column in columns.items() if column.name in file.schema.names}
    strings = [column.name for column in stored.values() if column.type == pa.string()]
    try:
        with file.location.filesystem.open_input_file(file.location.path) as source:
            batches = pq.ParquetFile(
                source,
                read_dictionary=strings,
                buffer_size=_BUFFER_BYTES,
                pre_buffer=not file.location.is_local and part.rows <= batch_rows,  # this holds all that will be read
            ).iter_batches(
                batch_size=batch_rows,
                row_groups=list(part.row_groups),
                columns=[column.name for column in stored.values()],
                use_threads=False,
            )
            for batch in batches:
                yield pa.table(
                    {
                        role.value: _as_type(batch[column.name], column.type)
                        if role in stored
                        else _repeat(file.partition[column.name], column.type, len(batch))
                        for role, column in columns.items()
                    }
                )
    except (pa.ArrowException, OSError) as error:
        if on_bad_file == OnBadFile.ERROR:
            raise InputError(
                f"{file.source} is damaged: {str(error).splitlines()[0].rstrip('.')}; restore it, or skip bad files.",
                "on_bad_file",
            ) from error


def _as_type(values: pa.Array, type_: pa.DataType) -> pa.Array:
    """Cast values to the common type. Strings of any layout become dictionary<int32, string>."""
    if type_ != pa.string():
        return values.cast(type_)
    if not pa.types.is_dictionary(values.type):
        return values.cast(pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(values.indices.cast(pa.int32()), values.dictionary.cast(pa.string()))


def _repeat(text: str | None, type_: pa.DataType, times: int) -> pa.Array:
    value = pa.scalar(text, pa.string()).cast(type_)
    return _as_type(pa.repeat(value, times), type_)


def _empty(columns: Mapping[Role, Column]) -> pa.Table:
    return pa.table({role.value: _as_type(pa.array([], column.type), column.type) for role, column in columns.items()})
