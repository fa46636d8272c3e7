"""From interaction logs to the dataset artefact, in three passes whose memory does not grow with the log.

1. *Partition* (Ray Data, or threads, over pieces of the log): read the rows, filter them, and deal them out to buckets
   by user.
2. *Gather* (one task a bucket): make the histories of its users without duplicates. The driver sums item counts. They
   give the k-core by iteration to its fixpoint, without another shuffle.
3. *Write* (one task a bucket): split each user's history and write the shard.

The number of pieces and buckets follows from the files and the configuration, never from the number of workers. Every
file is a pure function of its inputs. So a killed run goes on where it stopped, a dead worker's file is made again, and
the bytes are the same on any cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from infrec.pipeline.cluster import Report, Work, map_tasks, silent
from infrec.pipeline.data import ITEMS, PARTS, Dataset, known_index, shard_name
from infrec.pipeline.ingest.config import IngestConfig
from infrec.pipeline.ingest.reading.contents import log_fingerprint
from infrec.pipeline.ingest.reading.logs import Column, Format, FoundFile, Role, find_files, names_of
from infrec.pipeline.ingest.reading.opening import open_log
from infrec.pipeline.ingest.reading.pieces import cut
from infrec.pipeline.ingest.reading.timestamps import parse_time
from infrec.pipeline.ingest.shuffle.partition import Dropped, Partitioning, number_items
from infrec.pipeline.ingest.shuffle.partition_all import partition_all
from infrec.pipeline.ingest.shuffle.selection import cut_at, filter_items, known_ids, number_kept
from infrec.pipeline.ingest.shuffle.shards import USER_COUNTS, Numbering, Sharding, write_shard
from infrec.pipeline.ingest.splits import Split
from infrec.pipeline.storage import Artefact, ArtefactWriter, FileRecord, InputError, Kind, Location

VALIDATION_FROM, TEST_FROM = 0.8, 0.9  # the default temporal cuts, as fractions of the interactions
_WITH_ITEMS = (Kind.DATASET, Kind.MODEL, Kind.SUMMARY)
_COMPRESSED_BYTES, _TEXT_BYTES = 3, 20  # of a row
_PASSES = 8  # all passes over a row take as long as reading so many interactions


def rows_in(found: Sequence[FoundFile]) -> int:
    """Return about the number of rows of these files, by their sizes."""

    def bytes_a_row(file: FoundFile) -> int:
        compressed = file.format == Format.PARQUET or file.name.endswith(".gz")
        return _COMPRESSED_BYTES if compressed else _TEXT_BYTES

    return sum(file.size // bytes_a_row(file) for file in found)


def ingest_work(rows: int) -> Work:
    """Return about the work of making a dataset of so many rows."""
    return Work(rows=_PASSES * rows)


def ingest(
    logs: Sequence[str | FoundFile],
    out: str | Location,
    config: IngestConfig,
    *,
    overwrite: bool = False,
    report: Report = silent,
) -> Dataset:
    """Make the dataset `out` from `logs` (paths, directories, globs) and return it. Call this inside a session.

    Raises `InputError` for whatever the user can mend. Then nothing is published, and what was at `out` stays.
    """
    known = Artefact.open(config.items_from, *_WITH_ITEMS) if config.items_from else None
    found = find_files(logs, config.format)
    inputs = {"items_from": known.manifest.fingerprint()} if known else {}
    # An unfinished run goes on if nobody has touched the files. Their stamps tell so without reading them.
    files = {str(file.location): file.stamp for file in found}
    purpose = {"config": asdict(config), "inputs": inputs, "files": files}
    with ArtefactWriter(out, Kind.DATASET, purpose=purpose, overwrite=overwrite) as writer:
        return _ingest(found, inputs, writer, config, known, report)


def _ingest(
    found: Sequence[FoundFile],
    inputs: Mapping[str, str],
    writer: ArtefactWriter,
    config: IngestConfig,
    known: Artefact | None,
    report: Report,
) -> Dataset:
    work = writer.work
    log = open_log(found, config.names, config.needed, on_bad_file=config.on_bad_file, work=work, report=report)
    inputs = {"log": log_fingerprint(found, report), **inputs}
    earlier = known_ids(known, log.columns[Role.ITEM])
    pieces = cut(log.files, config.piece_rows)
    rows = sum(piece.rows for piece in pieces)
    parts = sum(piece.parts for piece in pieces)
    buckets = max(1, -(-rows // config.bucket_rows))
    how = Partitioning.of(config, log.columns, buckets, work)
    dropped = partition_all(pieces, how, report)
    _refuse_if_empty(rows - dropped.total(), rows, dropped)
    vocabulary = number_items(work, parts, report)

    sharding = Sharding(
        staging=writer.staging,
        work=work,
        parts=parts,
        split=config.split,
        seed=config.seed,
        min_user_interactions=max(config.min_user_interactions, config.k_core),
    )
    in_question = np.ones(len(vocabulary), dtype=bool)
    if config.known_items_only:
        in_question = known_index(vocabulary, earlier) >= 0
    keep_item, users = filter_items(
        buckets,
        sharding,
        in_question,
        rows=rows - dropped.total(),
        min_user_interactions=config.min_user_interactions,
        k_core=config.k_core,
        dropped=dropped,
        report=report,
    )
    _refuse_if_empty(int(keep_item.sum()), rows, dropped)
    item_ids, numbering = number_kept(vocabulary, keep_item, earlier)
    interactions = rows - dropped.total()
    cuts = _cuts(config, log.columns, buckets, sharding, numbering, interactions, report)

    files: dict[str, FileRecord] = {}
    counts: Counter[str] = Counter()
    train_counts = np.zeros(len(item_ids), dtype=np.int64)
    done = 0
    report("write shards", 0, interactions)
    for shard in map_tasks(write_shard, range(buckets), sharding, numbering, cuts):
        files[shard_name(shard.index)] = shard.file
        counts.update(shard.counts)
        dropped.update(shard.dropped)
        train_counts += shard.train_counts
        done += sum(shard.counts[part] for part in PARTS) + shard.dropped.total()
        report("write shards", done, interactions)
    _refuse_if_empty(counts["users"], rows, dropped)
    files[ITEMS] = writer.write_table(ITEMS, pa.table({"item_id": item_ids, "train_count": train_counts}))
    artefact = writer.publish(
        config=config.described,
        inputs=inputs,
        counts={
            "rows": rows,
            "items": len(item_ids),
            "shards": buckets,
            **{name: counts[name] for name in USER_COUNTS},
            "users_left_out": users - counts["users"],
            "dropped": {reason.value: dropped[reason] for reason in Dropped if dropped[reason]},
            "bad_files": names_of(log.bad_files, found),
            "cuts": cuts,
        },
        files=files,
    )
    return Dataset(artefact)


def _cuts(
    config: IngestConfig,
    columns: Mapping[Role, Column],
    buckets: int,
    sharding: Sharding,
    numbering: Numbering,
    interactions: int,
    report: Report,
) -> tuple[int, int] | None:
    """Return the times at which validation and test begin, or None if the split is not by time."""
    if config.split != Split.TEMPORAL:
        return None
    cuts = []
    for text, setting, fraction in (
        (config.validation_from, "validation_from", VALIDATION_FROM),
        (config.test_from, "test_from", TEST_FROM),
    ):
        cuts.append(
            cut_at(fraction, buckets, sharding, numbering, interactions, report)
            if text is None
            else parse_time(text, columns[Role.TIMESTAMP].type, setting)
        )
    validation, test = cuts
    if validation > test:
        raise InputError("Validation must not begin after test: mend one of the two.", "validation_from", "test_from")
    return validation, test


def _refuse_if_empty(left: int, rows: int, dropped: Counter[str]) -> None:
    if left == 0:
        reasons = ", ".join(f"{dropped[reason]} {reason}" for reason in Dropped if dropped[reason])
        raise InputError(f"None of the log's {rows} rows is left: {reasons or 'it has none'}.")
