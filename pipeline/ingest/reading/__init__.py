"""A log as it is stored: its files, their columns, and their rows piece by piece.

`logs` finds files and reads footers. `opening` agrees on one schema. `pieces` cuts the log into pieces and reads them.
`text` turns text into Parquet. `timestamps` makes times of any type comparable. `contents` makes fingerprints of logs.
"""

from infrec.pipeline.ingest.reading.contents import log_fingerprint, sha256_of
from infrec.pipeline.ingest.reading.logs import (
    Column,
    Format,
    FoundFile,
    LogFile,
    OnBadFile,
    Role,
    common_type,
    find_files,
    names_of,
)
from infrec.pipeline.ingest.reading.opening import open_log
from infrec.pipeline.ingest.reading.pieces import Piece, cut, read
from infrec.pipeline.ingest.reading.timestamps import (
    RADIX_BITS,
    is_time,
    parse_time,
    quantile,
    radix_histogram,
    sortable,
)

__all__ = [
    "RADIX_BITS",
    "Column",
    "Format",
    "FoundFile",
    "LogFile",
    "OnBadFile",
    "Piece",
    "Role",
    "common_type",
    "cut",
    "find_files",
    "is_time",
    "log_fingerprint",
    "names_of",
    "open_log",
    "parse_time",
    "quantile",
    "radix_histogram",
    "read",
    "sha256_of",
    "sortable",
]
