"""Lists of item ids: the items that may be recommended, and the items that may not.

A list is a file with one column: Parquet, CSV with a header, or text with one id a line.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from infrec.pipeline.data.catalogue import known_index
from infrec.pipeline.storage import InputError, Location, fingerprint

_PARQUET = (".parquet", ".pq", ".parq")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The items of a catalogue that may be recommended."""

    allowed: Int[np.ndarray, " allowed"] | None
    """The indices of the allowed items, ascending. None: all items."""
    unknown: int
    """The number of ids in the lists that are not in the catalogue."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the allowed items. Two fingerprints are equal if and only if the allowed items are."""
        return fingerprint([None if self.allowed is None else self.allowed.tolist()])

    @classmethod
    def of(cls, catalogue: pa.Array, *, allow: str | None, deny: str | None) -> Offer:
        """Return the items of `catalogue` that are in the list at `allow` and not in the list at `deny`.

        `catalogue` has the ids in index order. Raises `InputError` if a file is no such list, if its ids are of another
        type, or if no item is left.
        """
        may = np.ones(len(catalogue), dtype=bool)
        unknown = 0
        for uri, setting in ((allow, "allow"), (deny, "deny")):
            if uri is not None:
                ids = _read(uri, setting, catalogue.type).unique()
                listed = known_index(catalogue, ids) >= 0
                unknown += len(ids) - int(np.count_nonzero(listed))
                may &= listed if setting == "allow" else ~listed
        if not may.any():
            settings = [setting for setting, uri in (("allow", allow), ("deny", deny)) if uri is not None]
            raise InputError(f"The lists leave none of the model's {len(may):,} items to recommend.", *settings)
        return cls(allowed=None if may.all() else np.flatnonzero(may), unknown=unknown)


def _read(uri: str, setting: str, type_: pa.DataType) -> pa.Array:
    """Return the ids in a list, as strings or integers like those of the catalogue, which are of `type_`."""
    location = Location.of(uri)
    if not location.info().is_file:
        raise InputError(f"There is no file at {location}.", setting)
    wanted = type_ if pa.types.is_string(type_) or pa.types.is_uint64(type_) else pa.int64()
    try:
        if location.name.lower().endswith(_PARQUET):
            ids = _parquet_column(location)
            if pa.types.is_primitive(ids.type) != pa.types.is_primitive(wanted):
                raise InputError(f"{location} has item ids of type {ids.type}, the model's are {type_}.", setting)
        else:
            ids = _text_column(location)
        return ids.cast(wanted)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{location} is not a list of ids like the model's ({type_}): {reason}.", setting) from error


def _parquet_column(location: Location) -> pa.Array:
    table = pq.ParquetFile(pa.BufferReader(location.read())).read()
    _require_one(table.column_names, location)
    ids = table.column(0).combine_chunks().drop_null()
    return ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids


def _text_column(location: Location) -> pa.Array:
    lines = location.read().to_pybytes().decode("utf-8-sig").splitlines()
    if location.name.lower().endswith(".csv"):
        rows = [row for row in csv.reader(lines) if row]
        _require_one(max(rows, key=len, default=[]), location)
        lines = [row[0] for row in rows[1:]]
    return pa.array([line.strip() for line in lines if line.strip()], pa.string())


def _require_one(columns: Sequence[str], location: Location) -> None:
    if len(columns) != 1:
        raise InputError(f"{location} must have one column, of item ids; it has: {', '.join(columns) or 'none'}.")
