"""From interaction logs to a dataset. The way of the data: `logs` and `opening` (which files, which columns) →
`pieces` → `partition` → `buckets` (gathered by user) → `selection` (filters, item numbers) → `shards` (split, written).
"""

from pipeline.ingest.config import IngestConfig
from pipeline.ingest.logs import Format, OnBadFile, find_files
from pipeline.ingest.run import ingest
from pipeline.ingest.splits import Split

__all__ = ["Format", "IngestConfig", "OnBadFile", "Split", "find_files", "ingest"]
