"""Fold more of a log into a dataset of it, at the cost of the new rows and of reading the shards once.

The new rows are partitioned and gathered as in `pipeline.ingest.run`, with the dataset's own shards as buckets. Each
shard tells which of its users and interactions it knows. New interactions go into its file of additions
(`pipeline.data.additions`), and the shards are taken over without being copied. Once there are many additions, the
shards are written anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infrec.pipeline.cluster import Report, map_tasks, map_threads, silent
from infrec.pipeline.data import ITEMS, PARTS, Dataset, shard_name
from infrec.pipeline.data.additions import additions_name
from infrec.pipeline.ingest.config import IngestConfig
from infrec.pipeline.ingest.growth.compaction import compact
from infrec.pipeline.ingest.growth.folding import Folded, Growth, fold
from infrec.pipeline.ingest.reading.contents import log_fingerprint
from infrec.pipeline.ingest.reading.logs import Column, FoundFile, Role, common_type, find_files, names_of
from infrec.pipeline.ingest.reading.opening import open_log
from infrec.pipeline.ingest.reading.pieces import cut
from infrec.pipeline.ingest.shuffle.partition import Dropped, Partitioning, number_items, partition
from infrec.pipeline.ingest.shuffle.selection import number_kept
from infrec.pipeline.ingest.shuffle.shards import USER_COUNTS
from infrec.pipeline.ingest.splits import Split
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, Kind, Location, Manifest

MOST_ADDED = 1 / 3  # additions as a share of the shards' own interactions: beyond it, the shards are written anew
_SHARDS_HERE = 64  # threads read so many in about a second, the time that Ray's workers take to start


@dataclass(frozen=True)
class Grown:
    """A dataset that has grown by more of its log."""

    dataset: Dataset
    """The whole dataset, grown."""
    fresh: Dataset
    """The users with new test interactions. Train and validation are as in `dataset`, and test has only the new ones.
    `fresh` has the items of `dataset`, and no users if there is nothing new to predict."""
    rows: int
    """The number of rows of the new log."""
    added: Mapping[str, int]
    """The numbers of new users, of new items, and of new interactions in train, validation and test."""
    dropped: Mapping[str, int]
    """The number of rows of the new log that were dropped, by reason."""


def grow(
    previous: Dataset,
    logs: Sequence[str | FoundFile],
    out: str | Location,
    fresh_out: str | Location,
    config: IngestConfig,
    *,
    overwrite: bool = False,
    report: Report = silent,
) -> Grown:
    """Make the dataset `out` from `previous` and more `logs` of the same kind. What is at `fresh_out` is replaced.

    Call this inside `ray_session`. `out` has the users and interactions that `ingest` of all logs at once would give
    it. Raises `InputError` for whatever the user can mend. Then nothing is published.
    """
    _refuse_what_cannot_grow(previous, config)
    found = find_files(logs, config.format)
    inputs = {"previous": previous.manifest.fingerprint()}
    files = {str(file.location): file.stamp for file in found}
    purpose = {"config": asdict(config), "inputs": inputs, "files": files}
    with (
        ArtefactWriter(out, Kind.DATASET, purpose=purpose, overwrite=overwrite) as writer,
        ArtefactWriter(fresh_out, Kind.DATASET, purpose=purpose, overwrite=True) as fresh_writer,
    ):
        return _grow(previous, found, inputs, writer, fresh_writer, config, report)


def _grow(
    previous: Dataset,
    found: Sequence[FoundFile],
    inputs: Mapping[str, str],
    writer: ArtefactWriter,
    fresh_writer: ArtefactWriter,
    config: IngestConfig,
    report: Report,
) -> Grown:
    work = writer.work
    log = open_log(found, config.names, config.needed, on_bad_file=config.on_bad_file, work=work, report=report)
    pieces = cut(log.files, config.piece_rows)
    rows, parts = sum(piece.rows for piece in pieces), sum(piece.parts for piece in pieces)
    known = previous.items()["item_id"].combine_chunks()
    if pieces:
        _refuse_another_type(previous, log.columns[Role.USER], _user_type(previous))
        _refuse_another_type(previous, log.columns[Role.ITEM], known.type)
    shards = previous.num_shards
    run = map_threads if len(pieces) <= 1 and shards <= _SHARDS_HERE else map_tasks

    inputs = {"log": log_fingerprint(found, report, run), **inputs}
    dropped: Counter[str] = Counter()
    how = Partitioning.of(config, log.columns, shards, work)
    for done, of_piece in enumerate(run(partition, pieces, how), start=1):
        dropped.update(of_piece)
        report("read pieces", done, len(pieces))
    vocabulary = number_items(work, parts, report, run) if parts else known[:0]
    item_ids, numbering = number_kept(vocabulary.cast(known.type), np.ones(len(vocabulary), dtype=bool), known)

    grown = work / "grown"
    growth = Growth(previous, numbering, config.seed, work, parts, grown, fresh_writer.staging)
    folded: list[Folded] = []
    train_counts = np.zeros(len(item_ids), dtype=np.int64)
    train_counts[: len(known)] = previous.items()["train_count"].to_numpy()
    for of_shard, trained in run(fold, range(shards if len(vocabulary) else 0), growth):
        folded.append(of_shard)
        train_counts += trained
        report("fold into shards", len(folded), shards)
    folded.sort(key=lambda of_shard: of_shard.index)
    dropped[Dropped.DUPLICATE] += sum(of_shard.duplicates for of_shard in folded)
    counts = _sum(of_shard.counts for of_shard in folded)

    items = pa.table({"item_id": item_ids, "train_count": train_counts})
    published = _counts(previous, folded, counts, len(items), rows, dropped, names_of(log.bad_files, found))
    fresh = _publish_fresh(fresh_writer, previous, inputs, items, folded, config)
    dataset = _publish(writer, previous, inputs, items, folded, published, config, report)
    return Grown(
        dataset=dataset,
        fresh=fresh,
        rows=rows,
        added={"items": len(items) - len(known), **{name: counts[name] for name in ("users", *PARTS)}},
        dropped={reason.value: dropped[reason] for reason in Dropped if dropped[reason]},
    )


def _refuse_what_cannot_grow(previous: Dataset, config: IngestConfig) -> None:
    where, before = previous.artefact.location, previous.manifest.config
    if config.split != Split.STABLE or before.get("split") != Split.STABLE:
        raise InputError(f"{where} cannot grow: that takes the split stable from the first ingest on.", "split")
    if config.min_user_interactions > 1 or config.k_core > 1 or config.known_items_only:
        raise InputError(
            "A dataset that grows keeps all users and items: no least number of interactions of a user and no k-core.",
            "min_user_interactions",
            "k_core",
        )
    for name in ("threshold", "seed", "min_user_interactions", "k_core"):
        ours = getattr(config, name)
        if before[name] != ours:
            noun = name.replace("_", " ")
            raise InputError(f"{where} was made with {noun} {before[name]}: it cannot grow with {noun} {ours}.", name)


def _refuse_another_type(previous: Dataset, column: Column, known: pa.DataType) -> None:
    if common_type(known, column.type) != known:
        raise InputError(
            f"Column {column.name} of the log is {column.type}, in {previous.artefact.location} it is {known}: "
            f"ingest the whole log anew."
        )


def _user_type(previous: Dataset) -> pa.DataType:
    location = previous.artefact.location / shard_name(0)
    with location.filesystem.open_input_file(location.path) as source:
        return pq.read_schema(source).field("user_id").type


def _counts(
    previous: Dataset,
    folded: Sequence[Folded],
    grown_by: Counter[str],
    items: int,
    rows: int,
    dropped: Counter[str],
    bad_files: list[str],
) -> dict[str, Any]:
    """Return the counts of the manifest, with those of additions."""
    before = previous.manifest.counts
    added = before.get("additions", 0) + sum(grown_by[part] for part in PARTS)
    of_additions = {"additions": added, "shard_users": [of_shard.users for of_shard in folded]}
    return {
        **before,
        "rows": before["rows"] + rows,
        "items": items,
        **{name: before[name] + grown_by[name] for name in USER_COUNTS},
        "dropped": {
            reason.value: count for reason in Dropped if (count := before["dropped"].get(reason, 0) + dropped[reason])
        },
        "bad_files": [*before["bad_files"], *bad_files],
        **(of_additions if folded and added else {}),
    }


def _publish(
    writer: ArtefactWriter,
    previous: Dataset,
    inputs: Mapping[str, str],
    items: pa.Table,
    folded: Sequence[Folded],
    counts: dict[str, Any],
    config: IngestConfig,
    report: Report,
) -> Dataset:
    """Publish the previous shards with the new additions: as files of their own, or in shards that are written anew."""
    before, grown = previous.manifest, writer.work / "grown"
    files = {additions_name(of_shard.index): of_shard.addition for of_shard in folded if of_shard.addition}
    origins = dict.fromkeys(files, grown)
    for name in before.files.keys() - files.keys() - {ITEMS}:
        files[name], origins[name] = before.files[name], previous.artefact.location
    added = counts.get("additions", 0)
    if added > MOST_ADDED * (sum(counts[part] for part in PARTS) - added):
        for name, origin in origins.items():
            if origin != grown:
                (origin / name).link(grown / name)
        whole = Dataset(Artefact(grown, Manifest(Kind.DATASET, {}, {}, counts, files)))
        files, shards = compact(whole, writer.staging, config.bucket_rows, report)
        counts = whole.counts_of_whole_shards() | {"shards": shards}
    else:
        for name, origin in origins.items():
            (origin / name).link(writer.staging / name)
    files[ITEMS] = writer.write_table(ITEMS, items)
    return Dataset(writer.publish(config=config.described, inputs=inputs, counts=counts, files=files))


def _publish_fresh(
    writer: ArtefactWriter,
    previous: Dataset,
    inputs: Mapping[str, str],
    items: pa.Table,
    folded: Sequence[Folded],
    config: IngestConfig,
) -> Dataset:
    counts = _sum(of_shard.fresh_counts for of_shard in folded)
    files = {shard_name(of_shard.index): of_shard.fresh for of_shard in folded}
    artefact = writer.publish(
        config=config.described,
        inputs=inputs,
        counts={"items": len(items), "shards": len(folded), **{name: counts[name] for name in USER_COUNTS}},
        files={**files, ITEMS: writer.write_table(ITEMS, items)},
    )
    return Dataset(artefact)


def _sum(shares: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for share in shares:
        total.update(share)
    return total
