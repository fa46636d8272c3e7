"""From interaction logs to a dataset.

`run` takes the data through all steps. `reading` opens the files and reads pieces of them. `shuffle` gathers the rows
by user and writes shards, split as `splits` says. `growth` folds more of a log into a dataset. `histories` makes a
dataset of raw histories.
"""

from infrec.pipeline.ingest.config import IngestConfig
from infrec.pipeline.ingest.growth.grow import grow
from infrec.pipeline.ingest.histories import ingest_histories
from infrec.pipeline.ingest.reading import Format, FoundFile, OnBadFile, find_files, is_time, sha256_of
from infrec.pipeline.ingest.run import ingest, ingest_work, rows_in
from infrec.pipeline.ingest.splits import Split

__all__ = [
    "Format",
    "FoundFile",
    "IngestConfig",
    "OnBadFile",
    "Split",
    "find_files",
    "grow",
    "ingest",
    "ingest_histories",
    "ingest_work",
    "is_time",
    "rows_in",
    "sha256_of",
]
