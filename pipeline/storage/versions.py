"""Versions, one of which is current. A pointer file names the current version, and is replaced as a whole.

current            {"version": "000007"}
versions/000007/   the version
"""

from __future__ import annotations

import json

from infrec.pipeline.storage.errors import InputError
from infrec.pipeline.storage.location import Location

CURRENT, VERSIONS = "current", "versions"


def current_version(root: Location) -> str | None:
    """Return the version that the pointer below `root` names, or None where there is no pointer.

    Raises `InputError` where the pointer is damaged.
    """
    pointer = root / CURRENT
    if not pointer.info().is_file:
        return None
    try:
        name = json.loads(pointer.read().to_pybytes())["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{pointer} is damaged: it names no version.") from error
    if not (isinstance(name, str) and name.isdecimal()):
        raise InputError(f"{pointer} is damaged: it names no version.")
    return name


def make_current(root: Location, name: str) -> None:
    """Write the pointer below `root`, so that the version `name` is current."""
    (root / CURRENT).write(json.dumps({"version": name}).encode())
