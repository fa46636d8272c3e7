"""Fingerprints of logs. They follow from the bytes of the files, not from where these lie or when they changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from infrec.pipeline.cluster import Report, TaskMap, map_tasks
from infrec.pipeline.ingest.reading.logs import FoundFile
from infrec.pipeline.storage import Location, fingerprint

_CHUNK_BYTES = 8 << 20
_GROUPS = 256
"""The number of tasks for a log of many files, each of which then reads a group of them."""


def log_fingerprint(found: Sequence[FoundFile], report: Report, run: TaskMap = map_tasks) -> str:
    """Read all files of a log and return the fingerprint of their contents: equal for the same files in any order."""
    groups = min(len(found), _GROUPS)
    digests: list[str] = []
    for of_group in run(_digests, [found[group::groups] for group in range(groups)]):
        digests += of_group
        report("fingerprint files", len(digests), len(found))
    return fingerprint(sorted(digests))


def sha256_of(location: Location) -> tuple[str, int]:
    """Return the SHA-256 of a file and its size in bytes. The file is read as a stream."""
    digest, size = hashlib.sha256(), 0
    with location.filesystem.open_input_stream(location.path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _digests(files: Sequence[FoundFile]) -> list[str]:
    """Return the SHA-256 of each file: the body of a task."""
    return [sha256_of(file.location)[0] for file in files]
