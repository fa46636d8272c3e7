"""The writer of artefacts. It fills a staging directory beside the target, and publishes it whole."""

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
    """The writer of one artefact. It fills a staging directory beside the target, and publishes it whole.

    `purpose` describes the artefact: config and input fingerprints. If a killed run of the same purpose left a staging
    directory, the writer continues it. It empties any other one. But with `keep_unfinished`, for staging directories
    that took long to fill, and without `overwrite` it raises `InputError` instead. It also raises `InputError` where
    the target exists, unless that is an empty directory, or `overwrite` is given and it is an artefact of this kind.
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
        # The same command would end here again, so the files of this run are of no use. But if it continued an earlier
        # run, that one may have got further, and the files stay
        if isinstance(error, InputError) and not isinstance(error, Diverged) and not self._goes_on:
            self.staging.remove()

    @property
    def work(self) -> Location:
        """The place for intermediate files. They are kept while the job is unfinished, and never published."""
        return self.staging / WORK

    def room(self) -> int | None:
        """Return how many bytes the staging directory may hold: the free ones and its own. None: an object store."""
        free = self.staging.free()
        return None if free is None else free + sum(file.info().size for file in self.staging.files())

    def write(self, name: str, content: bytes | pa.Buffer) -> FileRecord:
        """Write one file into the staging directory, and return its record for `publish`."""
        (self.staging / name).write(content)
        return FileRecord.of(content)

    def write_table(self, name: str, table: pa.Table) -> FileRecord:
        """Write a table as one Parquet file, and return its record for `publish`."""
        return self.write(name, parquet_bytes(table))

    def publish(
        self,
        *,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        counts: Mapping[str, Any],
        files: Mapping[str, FileRecord],
    ) -> Artefact:
        """Write the manifest and make the artefact appear at its target, all at once.

        Raises `InputError` where something is at the target that must not be replaced.
        """
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
            (self.target / MANIFEST).remove()  # from here until the manifest is written there is no artefact
            self.target.remove()
            for name in manifest.files:
                (self.staging / name).copy(self.target / name)
            (self.target / MANIFEST).write(manifest.to_json())
            self.staging.remove()
        return Artefact(self.target, manifest)

    def _check_target(self) -> None:
        """Refuse early a target that `publish` could not write to. Only an artefact of this kind is ever removed."""
        if not self.target.exists():
            return
        manifest = self.target / MANIFEST
        if self.target.is_directory() and not self.target.files():
            return
        if not self.target.is_local and self.staging.exists() and not manifest.exists():
            return  # our own publication was killed half-way and left this in an object store
        if not self._overwrite:
            raise InputError(f"{self.target} exists: choose another place, or replace it.", "out", "overwrite")
        found = None
        if manifest.exists():
            found = Manifest.from_json(manifest.read().to_pybytes(), where=str(self.target)).kind
        if found != self.kind:
            raise InputError(f"{self.target} exists and is not a {self.kind}: it is not replaced.", "out", "overwrite")

    def _claim(self, purpose: Mapping[str, Any], *, keep_unfinished: bool) -> bool:
        """Make the staging directory this run's. Return whether the run continues what an earlier one left."""
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
    """Return whether a run was killed that would have published something at `uri`."""
    return _staging(Location.of(uri)).exists()


def _staging(target: Location) -> Location:
    return target.parent / f".{target.name}.partial"


def write_with_receipt(staging: Location, name: str, content: pa.Buffer, note: Mapping[str, Any]) -> FileRecord:
    """Write a file of an unfinished artefact, and then its receipt, by which `finished` recognises the file.

    The receipt holds `note`, which must fit into JSON. Returns the file's record.
    """
    file = FileRecord.of(content)
    (staging / name).write(content)
    (staging / WORK / f"{name}.json").write(json.dumps({"file": asdict(file), "note": note}).encode())
    return file


def finished(staging: Location, name: str) -> tuple[pa.Buffer, FileRecord, dict[str, Any]] | None:
    """Return the content, record and note of a file that `write_with_receipt` wrote in an earlier run.

    Return None where there is no such file, or where its bytes do not match its receipt.
    """
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
    """Return the first entries that differ, at most three, as words."""
    names = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    return ", ".join(f"{name} ({theirs.get(name)} there, {ours.get(name)} here)" for name in sorted(names)[:3])
