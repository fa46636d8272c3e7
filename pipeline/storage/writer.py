"""Writing artefacts: a staging directory beside the target is filled, and published whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import pyarrow as pa

from infrec.pipeline.storage.artefact import MANIFEST, Artefact, FileRecord, Kind, Manifest, parquet_bytes
from infrec.pipeline.storage.errors import Diverged, InputError
from infrec.pipeline.storage.location import Location

WORK = "_work"


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
            raise InputError(f"{self.target} exists: choose another place, or replace it.", "out", "overwrite")
        found = None
        if manifest.exists():
            found = Manifest.from_json(manifest.read().to_pybytes(), where=str(self.target)).kind
        if found != self.kind:
            raise InputError(f"{self.target} exists and is not a {self.kind}: it is not replaced.", "out", "overwrite")

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
                    f"run that one again to go on with it, or discard it.",
                    "overwrite",
                )
        self.staging.remove()
        note.write(json.dumps(ours).encode())
        return False


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
