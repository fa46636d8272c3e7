"""Addresses: one type for local paths and object stores. A file that is written there is whole or absent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.fs as pafs

from infrec.pipeline.storage.errors import InputError


@dataclass(frozen=True)
class Location:
    """A directory or file on a `pyarrow.fs` filesystem. It can be pickled, so remote tasks can take one.

    >>> (Location.of("/data/logs") / "part-0.parquet").path
    '/data/logs/part-0.parquet'
    """

    filesystem: Any
    path: str

    @classmethod
    def of(cls, uri: str | os.PathLike[str] | Location) -> Location:
        """Return the location of a local path (made absolute) or of a `scheme://` URI (s3, gs, hdfs, file).

        Raises `InputError` for a URI that pyarrow cannot read.
        """
        if isinstance(uri, Location):
            return uri
        text = os.fspath(uri)
        if "://" not in text:
            return cls(pafs.LocalFileSystem(), str(Path(text).expanduser().absolute()))
        try:
            filesystem, path = pafs.FileSystem.from_uri(text)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{text} is not an address that can be read: {error}.") from error
        return cls(filesystem, path)

    def __truediv__(self, name: str) -> Location:
        return Location(self.filesystem, f"{self.path.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.filesystem.type_name}://{self.path}"

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        return Location(self.filesystem, self.path.rstrip("/").rsplit("/", 1)[0] or "/")

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def info(self) -> Any:
        return self.filesystem.get_file_info(self.path)

    def exists(self) -> bool:
        return bool(self.info().type != pafs.FileType.NotFound)

    def is_directory(self) -> bool:
        return bool(self.info().type == pafs.FileType.Directory)

    def files(self) -> list[Location]:
        """Return every file below this directory, sorted by path. Without such a directory the list is empty."""
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return [
            Location(self.filesystem, info.path)
            for info in sorted(found, key=lambda info: info.path)
            if info.type == pafs.FileType.File
        ]

    def free(self) -> int | None:
        """Return the free bytes on the disk of this existing directory. None: an object store, which has room."""
        return int(psutil.disk_usage(self.path).free) if self.is_local else None

    def read(self) -> pa.Buffer:
        """Return the file's bytes: memory-mapped where the file is local, downloaded where it is not."""
        if self.is_local:
            with pa.memory_map(self.path) as source:
                return source.read_buffer()
        with self.filesystem.open_input_file(self.path) as source:
            return source.read_buffer()

    def write(self, content: bytes | pa.Buffer) -> None:
        """Write the file so that a reader sees all of it or nothing."""
        with self.stream() as sink:
            sink.write(content)

    @contextmanager
    def stream(self) -> Iterator[Any]:
        """Write the file bit by bit. A reader sees it, whole, once the block has ended without an error."""
        if not self.is_local:  # an object appears under its name only once it is complete
            with self.filesystem.open_output_stream(self.path) as sink:
                yield sink
            return
        target = Path(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with self.filesystem.open_output_stream(str(temporary)) as sink:
                yield sink
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file or the whole directory. Nothing happens where there is none."""
        kind = self.info().type
        if kind == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif kind == pafs.FileType.File:
            self.filesystem.delete_file(self.path)

    def move(self, target: Location) -> None:
        """Rename the file or directory to `target`."""
        self.filesystem.move(self.path, target.path)

    def link(self, target: Location) -> None:
        """Let the file be at `target` as well, without copying its bytes where that is possible.

        Nobody may change the file afterwards, since the two may share their bytes.
        """
        target.remove()
        if self.is_local and target.is_local:
            Path(target.path).parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):  # the target is on another disk, or on one without hard links
                os.link(self.path, target.path)
                return
        if self.filesystem.equals(target.filesystem):
            self.copy(target)
        else:
            target.write(self.read())

    def copy(self, target: Location) -> None:
        """Copy the file within its filesystem. The bytes do not pass through this process."""
        self.filesystem.copy_file(self.path, target.path)
