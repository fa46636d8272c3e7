"""The lock of a state. It lets one run at a time change the state. A lock file names the owner and when it expires.

The owner renews the lock while it lives. An owner is dead if its process is gone from this machine, or if it did not
renew the lock in time. Then the next run takes the lock over. A run that lost its lock, say on a machine that was
suspended, finds this out before it publishes.

On a file system on which processes can lock files (a local one, or NFS with locking), two runs can never both hold the
lock: a run looks at it and writes it in one step, under `flock`. An object store has no such step. There a run writes
its name, waits for a moment and looks whose name the file holds. If two runs begin at the same time, the later writer
wins, unless its write takes longer than that moment.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from infrec.pipeline.storage.errors import Busy
from infrec.pipeline.storage.location import Location

LOCK, GUARD = "lock", ".lock.guard"
EXPIRES_SECONDS = 600.0
"""A lock expires so long after its last renewal. This is more than the clocks of machines that share a state differ,
and less than the time between two scheduled runs."""
_RENEWALS = 5
"""The number of renewals in the time after which the lock would expire. Some of them may fail."""
_MOMENT_SECONDS = 2.0
"""Within this time a write to an object store is done, and everyone sees it."""


@dataclass(frozen=True)
class Owner:
    """The content of a lock file: the run that holds the lock."""

    run: str
    nonce: str
    """A text that tells apart runs of the same id."""
    host: str
    machine: str
    """A text that tells apart machines and containers of the same host name."""
    pid: int
    process_started: float
    """The time at which the process began. The system may give its number to another process later."""
    expires: float
    """The time at which the lock expires, in seconds since 1970."""

    @classmethod
    def this_process(cls, run: str, seconds: float, nonce: str = "") -> Self:
        started = psutil.Process().create_time()
        return cls(run, nonce, socket.gethostname(), _machine(), os.getpid(), started, time.time() + seconds)

    def is_dead(self) -> bool:
        """Return whether the lock has expired, or the process ran on this machine and is gone."""
        if self.expires < time.time():
            return True
        if self.machine != _machine():
            return False
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.process_started) > 1)
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        return f"run {self.run} (process {self.pid} on {self.host})"


@contextmanager
def hold(folder: Location, run: str, *, seconds: float = EXPIRES_SECONDS) -> Iterator[Lock]:
    """Hold the lock of the state at `folder` within the block, for the run with the id `run`.

    The lock is renewed as long as the block lasts; it expires `seconds` after its last renewal. Raises `Busy` where a
    living run holds it.
    """
    lock = Lock(folder, run, seconds)
    lock.acquire()
    ended = threading.Event()
    renewal = threading.Thread(target=lock.renew_until, args=(ended,), daemon=True)
    renewal.start()
    try:
        yield lock
    finally:
        ended.set()
        renewal.join()
        lock.release()


class Lock:
    """The lock of a state, for one run. `hold` makes it."""

    def __init__(self, folder: Location, run: str, seconds: float) -> None:
        self.taken_from: Owner | None = None
        """The dead run from which this run took the lock over, if there was one."""
        self._folder, self._file = folder, folder / LOCK
        self._run, self._nonce, self._seconds = run, uuid.uuid4().hex, seconds

    def acquire(self) -> None:
        """Take the lock. Raises `Busy` where a living run holds it."""
        with self._alone():
            owner = self._owner()
            if owner and not owner.is_dead():
                raise Busy(f"{self._folder} is being changed by {owner}: wait for it to end.")
            self.taken_from = owner
            self._write()
        if not self._folder.is_local:
            time.sleep(_MOMENT_SECONDS)
            self._require_ownership()

    def renew_until(self, ended: threading.Event) -> None:
        """Renew the lock at intervals, until `ended` is set or another run has taken the lock over."""
        while not ended.wait(self._seconds / _RENEWALS):
            with suppress(OSError), self._alone():  # the next renewal may succeed
                if not self._is_ours():
                    return
                self._write()

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Keep other runs from taking the lock over in this block, which must be short. Raises `Busy` if one did."""
        with self._alone():
            self._require_ownership()
            yield

    def release(self) -> None:
        """Remove the lock file, unless another run has taken the lock over."""
        with self._alone():
            if self._is_ours():
                self._file.remove()

    def _require_ownership(self) -> None:
        if not self._is_ours():
            raise Busy(
                f"{self._folder} is being changed by {self._owner() or 'another run'}, which took over the lock."
            )

    def _is_ours(self) -> bool:
        owner = self._owner()
        return owner is not None and owner.nonce == self._nonce

    def _owner(self) -> Owner | None:
        if not self._file.exists():
            return None
        try:
            return Owner(**json.loads(self._file.read().to_pybytes()))
        except (ValueError, TypeError, OSError):  # it is no lock file, or it was removed just now
            return None

    def _write(self) -> None:
        self._file.write(json.dumps(asdict(Owner.this_process(self._run, self._seconds, self._nonce))).encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep all other processes of this file system out of this block; object stores cannot.

        The guard is freed when the block ends, even if the process dies.
        """
        if not self._folder.is_local:
            yield
            return
        guard = Path((self._folder / GUARD).path)
        guard.parent.mkdir(parents=True, exist_ok=True)
        with guard.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _machine() -> str:
    """Return the scope in which process numbers are unique: on Linux boot and process namespace, else the host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
