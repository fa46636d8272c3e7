"""A state directory: versions of a dataset and its summary, one of which is current.

    state.json                        the format, and the settings that all versions have in common
    lock                              the run that is changing the state: `pipeline.storage.lock`
    current                           {"version": "000007"}: a version is published when this file is replaced
    versions/000007/plan.json         the plan of the version: the version before and every file of the log
    versions/000007/dataset/          the dataset
    versions/000007/summary/          the summary that was distilled from it
    versions/000007/version.json      when and how the version was made; written last, it makes the version whole
    history/…                         `pipeline.nightly.history`

A version is never changed. A killed run leaves a version without `version.json`. The next run continues it if it has
the same plan, and removes it otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from infrec.pipeline.data import Dataset
from infrec.pipeline.nightly.log_changes import SeenFile, from_json
from infrec.pipeline.storage import (
    CURRENT,
    LOCK,
    VERSIONS,
    Artefact,
    InputError,
    Kind,
    Location,
    current_version,
    make_current,
)

STATE_FORMAT = 1
DATASET, SUMMARY = "dataset", "summary"
_STATE, _PLAN, _VERSION = "state.json", "plan.json", "version.json"


@dataclass(frozen=True)
class Version:
    """A whole version, open for reading."""

    folder: Location
    parent: str | None
    """The version that it was made from."""
    files: Mapping[str, SeenFile]
    """The files of the log as they were folded in."""
    record: Mapping[str, Any]
    """The version's row of the history."""
    dataset: Dataset
    summary: Artefact

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def number(self) -> int:
        return int(self.name)


@dataclass(frozen=True)
class Found:
    """The version from which a run continues."""

    version: Version | None
    """None if there is none yet, or none that is whole."""
    damage: str | None = None
    """The reason why it is not the one that `current` names."""


class State:
    """The state at an address. Methods that change it are called within `Lock.ours`."""

    def __init__(self, uri: str) -> None:
        self.root = Location.of(uri)
        self._uri = uri

    @classmethod
    def at(cls, uri: str, *, new: bool = False) -> State:
        """Return the state at `uri`. With `new`, it need not have begun yet.

        Raises `InputError` if something else is there, or a state of another format.
        """
        state = cls(uri)
        if not (state.root / _STATE).exists():
            if not new:
                raise InputError(f"There is no state of infrec resummarize at {state.root}.")
            if state.root.info().is_file or any(_is_foreign(file.name) for file in state.root.files()):
                raise InputError(
                    f"{state.root} exists and is not a state of infrec resummarize: choose another place.", "state"
                )
            return state
        format = _json(state.root / _STATE).get("format")
        if format != STATE_FORMAT:
            raise InputError(f"{state.root} has state format {format}, this infrec knows {STATE_FORMAT} only.")
        return state

    def agree_on(self, options: Mapping[str, Any]) -> None:
        """Keep the settings for all later runs. Raises `InputError` if they are not those of the runs before."""
        ours = json.loads(json.dumps(options))
        if (self.root / CURRENT).exists() or self._names():
            theirs = _json(self.root / _STATE)["options"]
            differences = [name for name in ours if ours[name] != theirs.get(name)]
            if differences:
                said = ", ".join(f"{name} {theirs.get(name)} there, {ours[name]} here" for name in differences)
                raise InputError(
                    f"{self.root} was made with other options ({said}): keep them, or begin another state.",
                    *(*differences, "state"),
                )
        else:
            (self.root / _STATE).write(json.dumps({"format": STATE_FORMAT, "options": ours}, indent=1).encode())

    def pointed_at(self) -> str | None:
        """Return the version that `current` names; None if it names none or is damaged."""
        with suppress(InputError):
            return current_version(self.root)
        return None

    def folder(self, name: str) -> Location:
        return self.root / VERSIONS / name

    def address(self, place: Location) -> str:
        """Return the address of a place in the state, in the form in which the state's own address was given."""
        base, mark, how = self._uri.partition("?")
        return base.rstrip("/") + place.path.removeprefix(self.root.path) + mark + how

    def find(self, *, read: bool = True) -> Found:
        """Return the current version or, if it is damaged, the last whole one before it.

        With `read`, every byte of a version is checked. Otherwise only the presence and the size of its files are.
        """
        try:
            named, damage = current_version(self.root), None
        except InputError as error:
            named, damage = None, str(error)
        if named:
            try:
                return Found(self.version(named, read=read))
            except InputError as error:
                damage = str(error)
        for name in reversed(self._names()):
            if named and name >= named:
                continue
            try:
                return Found(self.version(name, read=read), damage or f"{self.root / CURRENT} is missing.")
            except InputError as error:
                damage = damage or str(error)
        return Found(None, damage)

    def version(self, name: str, *, read: bool = True) -> Version:
        """Return a version, checked as in `find`. Raises `InputError` if it is not whole."""
        folder = self.folder(name)
        if not (folder / _VERSION).exists():
            raise InputError(f"{folder} is not a whole version: it has no {_VERSION}.")
        record, plan = _json(folder / _VERSION), _json(folder / _PLAN)
        dataset, summary = Dataset.open(folder / DATASET), Artefact.open(folder / SUMMARY, Kind.SUMMARY)
        for artefact in (dataset.artefact, summary) if read else ():  # distilling will read more
            for file in artefact.manifest.files:
                artefact.read(file)
        return Version(folder, plan["parent"], from_json(plan["files"]), record, dataset, summary)

    def parent(self, name: str) -> str | None:
        """Return the version that a version was made from."""
        parent: str | None = _json(self.folder(name) / _PLAN)["parent"]
        return parent

    def next_name(self) -> str:
        """Return the name of the version to be made. It is above all others, and above a current one that is gone."""
        known = [*self._names(), self.pointed_at() or "0"]
        return f"{max(map(int, known)) + 1:06d}"

    def begin(self, name: str, plan: Mapping[str, Any]) -> Location:
        """Return the folder of a version to be made by `plan`. Remove leftovers of killed runs with any other plan."""
        content = json.dumps(plan, indent=1).encode()
        versions = self.root / VERSIONS
        there = {file.path.removeprefix(versions.path).strip("/").split("/")[0] for file in versions.files()}
        folder = self.folder(name)
        for left in sorted(there - {*self._names()}):
            note = versions / left / _PLAN
            if not (left == name and note.exists() and note.read().to_pybytes() == content):
                (versions / left).remove()
        (folder / _PLAN).write(content)
        return folder

    def publish(self, folder: Location, record: Mapping[str, Any]) -> None:
        """Declare a version whole, and make it the current one."""
        (folder / _VERSION).write(json.dumps(record, indent=1, ensure_ascii=False).encode())
        self.switch(folder.name)

    def switch(self, name: str) -> None:
        """Make a version the current one."""
        make_current(self.root, name)

    def prune(self, keep: int) -> list[str]:
        """Remove all versions but the last `keep` of those that led to the current one. Return the removed names."""
        kept: list[str] = []
        name = self.pointed_at()
        while name and len(kept) < keep and (self.folder(name) / _VERSION).exists():
            kept.append(name)
            name = self.parent(name)
        others = [name for name in self._names() if name not in kept]
        for name in others:
            (self.folder(name) / _VERSION).remove()  # it goes first, as half a version is none
            self.folder(name).remove()
        return others

    def _names(self) -> list[str]:
        """Return the names of the versions that were made to the end, in their order."""
        versions = self.root / VERSIONS
        return sorted(
            file.parent.name
            for file in versions.files()
            if file.name == _VERSION and file.parent.parent.path == versions.path
        )


def _is_foreign(name: str) -> bool:
    """Return whether a file is neither the lock nor hidden, as the lock's guard and killed writers' leftovers are."""
    return name != LOCK and not name.startswith(".")


def _json(file: Location) -> dict[str, Any]:
    try:
        body = json.loads(file.read().to_pybytes())
    except (ValueError, OSError) as error:
        raise InputError(f"{file} is damaged: it cannot be read as JSON.") from error
    if not isinstance(body, dict):
        raise InputError(f"{file} is damaged: it is not a JSON object.")
    return body
