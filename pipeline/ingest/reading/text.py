"""Text logs (CSV, MovieLens, RecBole) are turned into Parquet as a stream, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from csv import reader
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from infrec.pipeline.ingest.reading.logs import BadFile, Format, FoundFile, Role, require
from infrec.pipeline.storage import Location

BLOCK_BYTES = 16 << 20  # types are inferred from a file's first block, which is large enough to have the odd id
_POSITIONS = (
    Role.USER,
    Role.ITEM,
    Role.RATING,
    Role.TIMESTAMP,
)  # the columns of MovieLens' files, which have no header


@dataclass(frozen=True)
class _Layout:
    """The layout of a text file: it tells how to find the fields."""

    delimiter: str
    fields: list[str]
    """A name for every field of a line."""
    skip_header: bool


def convert(file: FoundFile, names: Mapping[Role, str], needed: frozenset[Role], target: Location) -> BadFile | None:
    """Write the file's columns among `names` to `target` as Parquet, unless that is there and whole.

    Ids that look like integers become integers, unless a later line shows that they are not. Return a `BadFile` if the
    file cannot be read as its format, else None. Raises `InputError` if a needed column is missing.
    """
    source = str(file.location)
    if _is_whole(target):
        return None
    try:
        layout = _layout(file, names)
        for role in needed:
            require(names[role], role, layout.fields, source)
        try:
            _stream(file, layout, names, target, ids_as_text=False)
        except pa.ArrowInvalid as error:
            if "conversion error" not in str(error):
                raise
            _stream(file, layout, names, target, ids_as_text=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        return BadFile(source, f"not a whole {file.format} file: {str(error).splitlines()[0].rstrip('.')}")
    return None


def _layout(file: FoundFile, names: Mapping[Role, str]) -> _Layout:
    with file.location.filesystem.open_input_stream(file.location.path) as stream:
        first_line = _first_line(stream)
    if not first_line:
        raise pa.ArrowInvalid("it is empty")
    if file.format == Format.MOVIELENS:
        positions = [names[role] for role in _POSITIONS]
        if "::" in first_line:  # single colons separate the fields, with an empty field between any two
            return _Layout(":", [field for name in positions for field in (name, f"after {name}")][:-1], False)
        return _Layout("\t", positions, False)
    if file.format == Format.INTER:
        return _Layout("\t", [field.split(":")[0] for field in first_line.split("\t")], True)
    return _Layout(",", next(iter(reader([first_line]))), True)


def _first_line(stream: pa.NativeFile) -> str:
    head: bytes = stream.read(1 << 16)
    return head.split(b"\n", 1)[0].decode("utf-8-sig").strip("\r")


def _stream(
    file: FoundFile, layout: _Layout, names: Mapping[Role, str], target: Location, *, ids_as_text: bool
) -> None:
    ids = (names[Role.USER], names[Role.ITEM])
    with (
        file.location.filesystem.open_input_stream(file.location.path) as stream,
        csv.open_csv(
            stream,
            csv.ReadOptions(
                use_threads=False,
                block_size=BLOCK_BYTES,
                column_names=layout.fields,
                skip_rows=1 if layout.skip_header else 0,
            ),
            csv.ParseOptions(delimiter=layout.delimiter),
            csv.ConvertOptions(
                include_columns=[name for name in names.values() if name in layout.fields],
                column_types={name: pa.string() for name in ids} if ids_as_text else None,
                strings_can_be_null=True,
            ),
        ) as batches,
        target.stream() as sink,
        pq.ParquetWriter(sink, batches.schema, compression="lz4") as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def _is_whole(target: Location) -> bool:
    if not target.exists():
        return False
    try:
        pq.read_metadata(pa.BufferReader(target.read()))
    except pa.ArrowException:
        return False
    return True
