"""Artefacts: directories that are either whole or absent, described by a manifest that is written last.

A dataset, a model, a summary, a recommendation table, a sweep. Writers fill a staging directory beside the target and
publish it by rename (object stores, which cannot rename: by copies within the store, the manifest last). Readers open
the manifest first and refuse a file that does not match it, naming the file. A killed writer leaves only a staging
directory, which no reader accepts and which the same command, run again, continues from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infrec.pipeline.storage.errors import InputError
from infrec.pipeline.storage.location import Location
from infrec.pipeline.storage.versions import VERSIONS, current_version

FORMAT_VERSION = 2  # 2: a dataset may have additions
MANIFEST = "manifest.json"


class Kind(StrEnum):
    DATASET = "dataset"
    MODEL = "model"
    SUMMARY = "summary"
    RECOMMENDATIONS = "recommendations"
    SWEEP = "sweep"
    LOG = "synthetic log"


@dataclass(frozen=True)
class FileRecord:
    """What the manifest says of one file, so that a changed byte is found by whoever reads it."""

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes | pa.Buffer) -> FileRecord:
        view = memoryview(content)
        return cls(size=view.nbytes, sha256=hashlib.sha256(view).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """What an artefact is and how it came to be."""

    kind: Kind
    config: Mapping[str, Any]
    """The options that made it: enough to make it again."""
    inputs: Mapping[str, str]
    """Name → fingerprint of everything that it was made from."""
    counts: Mapping[str, Any]
    """Rows, users, items, what was dropped and why."""
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    version: int = FORMAT_VERSION

    def fingerprint(self) -> str:
        """A digest of the artefact's content: equal if and only if kind, config, inputs and all bytes are."""
        return hashlib.sha256(self._canonical().encode()).hexdigest()

    def to_json(self) -> bytes:
        body = json.loads(self._canonical())
        return json.dumps({**body, "fingerprint": self.fingerprint()}, indent=1, ensure_ascii=False).encode()

    def _canonical(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, content: bytes, *, where: str) -> Manifest:
        try:
            body = json.loads(content)
            version = body["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{where}/{MANIFEST} is damaged: it is not a manifest.") from error
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise InputError(
                f"{where} has format version {version}, this infrec reads up to {FORMAT_VERSION}: upgrade infrec."
            )
        try:
            expected = body.pop("fingerprint")
            files = {name: FileRecord(**record) for name, record in body.pop("files").items()}
            manifest = cls(**{**body, "kind": Kind(body["kind"]), "files": files})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where}/{MANIFEST} is damaged: {error}.") from error
        if manifest.fingerprint() != expected:
            raise InputError(f"{where}/{MANIFEST} is damaged: its content does not match its fingerprint.")
        return manifest


@dataclass(frozen=True)
class Artefact:
    """A published artefact, open for reading. Picklable: remote actors read the files that they need."""

    location: Location
    manifest: Manifest

    @classmethod
    def open(cls, uri: str | Location, *kinds: Kind) -> Artefact:
        """Open the artefact at `uri`, which is of one of these kinds; in a state of resummarizations, the current one.

        Raises `InputError` where there is none, where its manifest is damaged, of another kind or newer than this
        code, or where a file is missing or of another size. Checksums are verified as files are read.
        """
        location, kind = _in_state(Location.of(uri), kinds), " or ".join(kinds)
        if not location.exists():
            raise InputError(f"There is no {kind} at {location}.")
        if not (location / MANIFEST).exists():
            raise InputError(f"{location} is not a {kind}: it has no {MANIFEST}.")
        manifest = Manifest.from_json((location / MANIFEST).read().to_pybytes(), where=str(location))
        if manifest.kind not in kinds:
            raise InputError(f"{location} is a {manifest.kind}, not a {kind}.")
        for name, record in manifest.files.items():
            info = (location / name).info()
            if not info.is_file:
                raise InputError(f"{location / name} is missing, the manifest lists it.")
            if info.size != record.size:
                raise InputError(f"{location / name} has {info.size} bytes, the manifest says {record.size}.")
        return cls(location, manifest)

    def read(self, name: str) -> pa.Buffer:
        """The bytes of one file (memory-mapped where local), after its checksum was found right."""
        content = (self.location / name).read()
        if FileRecord.of(content) != self.manifest.files[name]:
            raise InputError(f"{self.location / name} is damaged: its checksum is not the manifest's.")
        return content

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One Parquet file of the artefact as a table."""
        # Not `pq.read_table`: that loads pyarrow.dataset and, with it, pandas, which actors have no use for
        return pq.ParquetFile(pa.BufferReader(self.read(name))).read(columns=columns)


def _in_state(location: Location, kinds: tuple[Kind, ...]) -> Location:
    """The dataset or the summary of the current version, if there is a state at `location`; else `location`."""
    kind = next((kind for kind in kinds if kind in (Kind.DATASET, Kind.SUMMARY)), None)
    if kind is None or (location / MANIFEST).exists():
        return location
    version = current_version(location)
    return location / VERSIONS / version / kind if version else location


def parquet_bytes(table: pa.Table, *, dictionaries: bool | list[str] = True) -> pa.Buffer:
    """The table as one Parquet file: zstd, no timestamps or paths within, so equal tables give equal bytes.

    `dictionaries` names the columns whose values repeat themselves, where it is known which do not.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=dictionaries)
    return sink.getvalue()


def fingerprint(parts: Iterable[Any]) -> str:
    """A digest of a sequence of JSON-able values, for naming what something was made from."""
    return hashlib.sha256(json.dumps(list(parts), default=str).encode()).hexdigest()
