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
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Diverged, InputError
from pipeline.storage import Location

FORMAT_VERSION = 2  # 2: a dataset may have additions
MANIFEST = "manifest.json"
WORK = "_work"
CURRENT, VERSIONS = "current", "versions"
"""Of a state of `infrec resummarize`: what names its current version, and where they are."""


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


class ArtefactWriter:
    """Fills a staging directory beside the target, and publishes it whole.

    `purpose` says what is being made (config and input fingerprints): a staging directory left by a killed run of the
    same purpose is continued. Any other one is emptied first, or refused with `keep_unfinished`, where it took long
    to fill.
    """

    def __init__(
        self,
        uri: str | Location,
        kind: Kind,
        *,
        purpose: Mapping[str, Any],
        overwrite: bool = False,
        keep_unfinished: bool = False,
    ) -> None:
        self.target = Location.of(uri)
        self.kind = kind
        self._overwrite = overwrite
        self._retired = self.target.parent / f".{self.target.name}.replaced"
        if self._retired.exists() and not self.target.exists():
            self._retired.move(self.target)  # a run was killed between the two renames of `publish`
        self.staging = _staging(self.target)
        self._check_target()
        self._goes_on = self._claim(purpose, keep_unfinished=keep_unfinished and not overwrite)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # The same command would end here again: nothing is worth continuing, but what an earlier run got further with
        if isinstance(error, InputError) and not isinstance(error, Diverged) and not self._goes_on:
            self.staging.remove()

    @property
    def work(self) -> Location:
        """For intermediate files: kept while the job is unfinished, never published."""
        return self.staging / WORK

    def room(self) -> int | None:
        """Bytes that may lie in the staging directory: those free and those there. None on an object store."""
        free = self.staging.free()
        return None if free is None else free + sum(file.info().size for file in self.staging.files())

    def write(self, name: str, content: bytes | pa.Buffer) -> FileRecord:
        (self.staging / name).write(content)
        return FileRecord.of(content)

    def write_table(self, name: str, table: pa.Table) -> FileRecord:
        return self.write(name, parquet_bytes(table))

    def publish(
        self,
        *,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        counts: Mapping[str, Any],
        files: Mapping[str, FileRecord],
    ) -> Artefact:
        """Write the manifest and let the artefact appear at its target, all at once."""
        self._check_target()
        self.work.remove()
        manifest = Manifest(self.kind, config, inputs, counts, dict(sorted(files.items())))
        if self.target.is_local:
            (self.staging / MANIFEST).write(manifest.to_json())
            self._retired.remove()
            if self.target.exists():
                self.target.move(self._retired)
            self.staging.move(self.target)
            self._retired.remove()
        else:
            (self.target / MANIFEST).remove()  # from here to the last line there is no artefact
            self.target.remove()
            for name in manifest.files:
                (self.staging / name).copy(self.target / name)
            (self.target / MANIFEST).write(manifest.to_json())
            self.staging.remove()
        return Artefact(self.target, manifest)

    def _check_target(self) -> None:
        """Refuse early what could not be published, and never remove what is not an artefact of this kind."""
        if not self.target.exists():
            return
        manifest = self.target / MANIFEST
        if self.target.is_directory() and not self.target.files():
            return
        if not self.target.is_local and self.staging.exists() and not manifest.exists():
            return  # what our own publication, killed half-way, left in an object store
        if not self._overwrite:
            raise InputError(f"{self.target} exists: choose another --out, or say --overwrite to replace it.")
        found = None
        if manifest.exists():
            found = Manifest.from_json(manifest.read().to_pybytes(), where=str(self.target)).kind
        if found != self.kind:
            raise InputError(f"{self.target} exists and is not a {self.kind}: --overwrite will not remove it.")

    def _claim(self, purpose: Mapping[str, Any], *, keep_unfinished: bool) -> bool:
        """Make the staging directory this run's; whether it goes on with what an earlier one left."""
        note = self.work / "purpose.json"
        ours = json.loads(json.dumps(purpose, default=str))
        if note.exists():
            theirs = json.loads(note.read().to_pybytes())
            if theirs == ours:
                return True
            if keep_unfinished:
                raise InputError(
                    f"{self.staging} is what an unfinished run left that differs in {_difference(theirs, ours)}: "
                    f"run that one again to go on with it, or say --overwrite to discard it."
                )
        self.staging.remove()
        note.write(json.dumps(ours).encode())
        return False


def _in_state(location: Location, kinds: tuple[Kind, ...]) -> Location:
    """The dataset or the summary of the current version, if there is a state at `location`; else `location`."""
    kind = next((kind for kind in kinds if kind in (Kind.DATASET, Kind.SUMMARY)), None)
    pointer = location / CURRENT
    if kind is None or (location / MANIFEST).exists() or not pointer.info().is_file:
        return location
    try:
        version: str = json.loads(pointer.read().to_pybytes())["version"]
        return location / VERSIONS / version / kind
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{pointer} is damaged: it names no version.") from error


def unfinished(uri: str | Location) -> bool:
    """Whether a run was killed that would have published something at `uri`."""
    return _staging(Location.of(uri)).exists()


def _staging(target: Location) -> Location:
    return target.parent / f".{target.name}.partial"


def write_with_receipt(staging: Location, name: str, content: pa.Buffer, note: Mapping[str, Any]) -> FileRecord:
    """Write a file of an unfinished artefact, then a receipt, with a JSON note, by which `finished` knows it again."""
    file = FileRecord.of(content)
    (staging / name).write(content)
    (staging / WORK / f"{name}.json").write(json.dumps({"file": asdict(file), "note": note}).encode())
    return file


def finished(staging: Location, name: str) -> tuple[pa.Buffer, FileRecord, dict[str, Any]] | None:
    """What `write_with_receipt` wrote in an earlier run, with its note, if the bytes are what its receipt says."""
    receipt = staging / WORK / f"{name}.json"
    if not (receipt.exists() and (staging / name).exists()):
        return None
    try:
        body = json.loads(receipt.read().to_pybytes())
    except ValueError:
        return None
    content, file = (staging / name).read(), FileRecord(**body["file"])
    return (content, file, body["note"]) if FileRecord.of(content) == file else None


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The first entries that are not the same, as words."""
    names = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    return ", ".join(f"{name} ({theirs.get(name)} there, {ours.get(name)} here)" for name in sorted(names)[:3])


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
