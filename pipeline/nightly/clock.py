"""Points in time in the format of a log: its timestamp column may hold dates, or numbers of some unit since 1970."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infrec.pipeline.ingest import Format, FoundFile, is_time
from infrec.pipeline.storage import InputError

_LOOKED_AT = 1000  # rows that are read to tell seconds from milliseconds
_PER_SECOND = (1, 10**3, 10**6, 10**9)


def midnight(days: int) -> datetime:
    """Return the last midnight, UTC, plus so many days. It does not change within a day, and so neither does a plan."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)


def in_words_of(files: Sequence[FoundFile], column: str, time: datetime) -> str | None:
    """Return `time` in the format of `column`, as ingest takes its bounds `since` and `until`.

    Return None if the first Parquet file with known values has no such column of times, or if there is no such file.
    """
    samples = (_sample(file, column) for file in files if file.format == Format.PARQUET)
    sample = next((sample for sample in samples if sample is not None), None)
    if sample is None or not is_time(sample.type):
        return None
    if pa.types.is_date(sample.type):
        return f"{time:%Y-%m-%d}"
    if pa.types.is_timestamp(sample.type):
        return f"{time:%Y-%m-%dT%H:%M:%S}" + ("Z" if sample.type.tz else "")
    typical = float(pc.quantile(sample, 0.5)[0].as_py())
    # Take the unit in which `time` is nearest to a typical value, by the logarithm
    distance = [abs(np.log(typical / (time.timestamp() * unit))) for unit in _PER_SECOND]
    return str(int(time.timestamp()) * _PER_SECOND[int(np.argmin(distance))])


def _sample(file: FoundFile, column: str) -> pa.Array | None:
    """Return the first known values of a column. Numbers must be positive: 0 and null stand for unknown times.

    The values have the type null if the file has no such column. The result is None if no value is known.
    """
    try:
        with file.location.filesystem.open_input_file(file.location.path) as stream:
            parquet = pq.ParquetFile(stream)
            if column not in parquet.schema_arrow.names:
                return pa.nulls(1) if parquet.metadata.num_rows else None
            batches = parquet.iter_batches(_LOOKED_AT, columns=[column])
            return next(filter(len, (_known(batch.column(0)) for batch in batches)), None)
    except (pa.ArrowException, OSError):
        return None  # ingest will report the fault of the file


def _known(times: pa.Array) -> pa.Array:
    times = times.drop_null()
    is_number = pa.types.is_integer(times.type) or pa.types.is_floating(times.type)
    return times.filter(pc.greater(times, 0)) if is_number else times


def days(window: str) -> int:
    """Return the number of days of a window such as `90d`. Raises `InputError` if it is none."""
    number = window.removesuffix("d")
    if not (window.endswith("d") and number.isdecimal() and 0 < int(number) < 100_000):
        raise InputError(f"The window {window} is not a number of days: write it like 90d.", "window")
    return int(number)
