"""Points in time in the words of a log: its timestamp column may hold dates, or numbers of some unit since 1970."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infrec.pipeline.ingest import Format, FoundFile, is_time
from infrec.pipeline.storage import InputError

_LOOKED_AT = 1000  # rows, to tell seconds from milliseconds
_PER_SECOND = (1, 10**3, 10**6, 10**9)


def midnight(days: int) -> datetime:
    """The last midnight, UTC, and so many days on: what a run is about does not change within a day."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)


def in_words_of(files: Sequence[FoundFile], column: str, time: datetime) -> str | None:
    """How `column` has it, for `--since` and `--until`; None where the first Parquet file that tells has none such."""
    samples = (_sample(file, column) for file in files if file.format == Format.PARQUET)
    sample = next((sample for sample in samples if sample is not None), None)
    if sample is None or not is_time(sample.type):
        return None
    if pa.types.is_date(sample.type):
        return f"{time:%Y-%m-%d}"
    if pa.types.is_timestamp(sample.type):
        return f"{time:%Y-%m-%dT%H:%M:%S}" + ("Z" if sample.type.tz else "")
    typical = float(pc.quantile(sample, 0.5)[0].as_py())
    # The unit in which now is nearest, by its logarithm
    distance = [abs(np.log(typical / (time.timestamp() * unit))) for unit in _PER_SECOND]
    return str(int(time.timestamp()) * _PER_SECOND[int(np.argmin(distance))])


def _sample(file: FoundFile, column: str) -> pa.Array | None:
    """The first values of a column, of numbers the positive ones: 0 and null stand for unknown times.

    Of type null where the file has no such column, None where all that it has is unknown.
    """
    try:
        with file.location.filesystem.open_input_file(file.location.path) as stream:
            parquet = pq.ParquetFile(stream)
            if column not in parquet.schema_arrow.names:
                return pa.nulls(1) if parquet.metadata.num_rows else None
            batches = parquet.iter_batches(_LOOKED_AT, columns=[column])
            return next(filter(len, (_known(batch.column(0)) for batch in batches)), None)
    except (pa.ArrowException, OSError):
        return None  # ingest will say what is wrong with it


def _known(times: pa.Array) -> pa.Array:
    times = times.drop_null()
    is_number = pa.types.is_integer(times.type) or pa.types.is_floating(times.type)
    return times.filter(pc.greater(times, 0)) if is_number else times


def days(window: str) -> int:
    """Of a window such as `90d`."""
    number = window.removesuffix("d")
    if not (window.endswith("d") and number.isdecimal() and 0 < int(number) < 100_000):
        raise InputError(f"The window {window} is not a number of days: write it like 90d.", "window")
    return int(number)
