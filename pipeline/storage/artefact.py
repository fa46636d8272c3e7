"""Artefacts: directories that are either whole or absent, described by a manifest that is written last.

An artefact is a dataset, a model, a summary, a set of recommendations, a sweep or a synthetic log. A writer fills a
staging directory beside the target and publishes it by a rename. An object store cannot rename: there the writer copies
the files within the store, the manifest last. A reader opens the manifest first. It refuses a file that does not match
the manifest, and names that file. A killed writer leaves only a staging directory. No reader accepts it, and the same
command, run again, continues from it.
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

FORMAT_VERSION = 3  # since version 2 a dataset may have additions, since version 3 a summary may have solved labels
MANIFEST = "manifest.json"


class Kind(StrEnum):
    """The kinds of artefact, by their names in manifests and messages."""

    DATASET = "dataset"
    MODEL = "model"
    SUMMARY = "summary"
    RECOMMENDATIONS = "recommendations"
    SWEEP = "sweep"
    LOG = "synthetic log"


@dataclass(frozen=True)
class FileRecord:
    """The manifest's record of one file: its size in bytes and its SHA-256, by which readers find a changed byte."""

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes | pa.Buffer) -> FileRecord:
        """Return the record of a file with this content."""
        view = memoryview(content)
        return cls(size=view.nbytes, sha256=hashlib.sha256(view).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """The description of an artefact: its kind, how it was made, and its files."""

    kind: Kind
    config: Mapping[str, Any]
    """The options that the artefact was made with. They are enough to make it again."""
    inputs: Mapping[str, str]
    """The fingerprint of everything that the artefact was made from, by name."""
    counts: Mapping[str, Any]
    """The counts of rows, users and items, and how much was dropped for which reason."""
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    version: int = FORMAT_VERSION

    def fingerprint(self) -> str:
        """Return a digest. Two digests are equal if and only if kind, config, inputs and all bytes are equal."""
        return hashlib.sha256(self._canonical().encode()).hexdigest()

    def to_json(self) -> bytes:
        """Return the content of the manifest's file: JSON that includes the fingerprint."""
        body = json.loads(self._canonical())
        return json.dumps({**body, "fingerprint": self.fingerprint()}, indent=1, ensure_ascii=False).encode()

    def _canonical(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, content: bytes, *, where: str) -> Manifest:
        """Read the content of a manifest's file. The messages call the artefact `where`.

        Raises `InputError` where the manifest is damaged or newer than this code.
        """
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
    """A published artefact, open for reading. It can be pickled: remote actors read the files that they need."""

    location: Location
    manifest: Manifest

    @classmethod
    def open(cls, uri: str | Location, *kinds: Kind) -> Artefact:
        """Open the artefact at `uri`, which must be of one of `kinds`.

        If `uri` is a state of nightly runs, this opens the dataset or the summary of its current version. Raises
        `InputError` where there is no artefact; where its manifest is damaged, of another kind or newer than this code;
        and where a file is missing or has another size. Checksums are verified as files are read.
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
        """Return the bytes of one file, memory-mapped where it is local. Raises `InputError` for a wrong checksum."""
        content = (self.location / name).read()
        if FileRecord.of(content) != self.manifest.files[name]:
            raise InputError(f"{self.location / name} is damaged: its checksum is not the manifest's.")
        return content

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return one Parquet file as a table with these columns (None: all). Raises `InputError` as `read` does."""
        # `pq.read_table` would load pyarrow.dataset and, with it, pandas, which actors do not need
        return pq.ParquetFile(pa.BufferReader(self.read(name))).read(columns=columns)


def _in_state(location: Location, kinds: tuple[Kind, ...]) -> Location:
    """Return the place of the current version's dataset or summary if `location` is a state, else `location`."""
    kind = next((kind for kind in kinds if kind in (Kind.DATASET, Kind.SUMMARY)), None)
    if kind is None or (location / MANIFEST).exists():
        return location
    version = current_version(location)
    return location / VERSIONS / version / kind if version else location


def parquet_bytes(
    table: pa.Table, *, dictionaries: bool | list[str] = True, compression_level: int | None = None
) -> pa.Buffer:
    """Return the table as one Parquet file, compressed with zstd.

    The file holds no timestamps and no paths, so equal tables give equal bytes. `dictionaries` names the columns whose
    values repeat, where the caller knows which do not. A greater `compression_level` takes longer and fewer bytes.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=dictionaries, compression_level=compression_level)
    return sink.getvalue()


def fingerprint(parts: Iterable[Any]) -> str:
    """Return a digest of a sequence of values that JSON can hold. It names what something was made from."""
    return hashlib.sha256(json.dumps(list(parts), default=str).encode()).hexdigest()
