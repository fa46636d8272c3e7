"""Where bytes live: files on local disks and object stores, and artefacts, which are whole or absent.

`location` has the address of a file or directory. `artefact` reads artefacts and `writer` publishes them. `tensors`
keeps dense arrays in files. `versions` names one of several versions as the current one, and `lock` lets one run at a
time change them. `errors` has the errors that the user can mend.
"""

from infrec.pipeline.storage.artefact import MANIFEST, Artefact, FileRecord, Kind, Manifest, fingerprint, parquet_bytes
from infrec.pipeline.storage.errors import Busy, Diverged, DoesNotFit, InputError, Kept
from infrec.pipeline.storage.location import Location
from infrec.pipeline.storage.lock import LOCK, Lock, hold
from infrec.pipeline.storage.tensors import (
    StoredTiles,
    read_tensor,
    read_tensors,
    stored_tiles,
    tensor_bytes,
    tensor_name,
    tensor_of,
    tile_name,
)
from infrec.pipeline.storage.versions import CURRENT, VERSIONS, current_version, make_current
from infrec.pipeline.storage.writer import ArtefactWriter, finished, unfinished, write_with_receipt

__all__ = [
    "CURRENT",
    "LOCK",
    "MANIFEST",
    "VERSIONS",
    "Artefact",
    "ArtefactWriter",
    "Busy",
    "Diverged",
    "DoesNotFit",
    "FileRecord",
    "InputError",
    "Kept",
    "Kind",
    "Location",
    "Lock",
    "Manifest",
    "StoredTiles",
    "current_version",
    "fingerprint",
    "finished",
    "hold",
    "make_current",
    "parquet_bytes",
    "read_tensor",
    "read_tensors",
    "stored_tiles",
    "tensor_bytes",
    "tensor_name",
    "tensor_of",
    "tile_name",
    "unfinished",
    "write_with_receipt",
]
