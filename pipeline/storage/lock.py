"""Who may change a state: one run at a time, by a lock file that names its owner and when it expires.

The owner renews the lock while it lives. One whose process is gone from this machine, or that was not renewed in time,
is dead, and the next run takes over. A run that lost its lock (a suspended machine) finds out before it publishes.

On a file system that processes lock files of (local ones, NFS with locking) two runs can never both hold the lock: to
look at it and to write it is one step, under `flock`. An object store has no such step: there a run writes its name,
waits for a moment and looks whose name stands there. Of two that begin at the same time the later writer wins, unless
its write takes longer than that moment.
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
"""More than the clocks of machines that share a state differ, less than from one scheduled run to the next."""
_RENEWALS = 5
"""In the time after which the lock would expire: some may fail."""
_MOMENT_SECONDS = 2.0
"""In which a write to an object store is through and seen by all."""


@dataclass(frozen=True)
class Owner:
    """What a lock file says."""

    run: str
    nonce: str
    """Tells runs of the same id apart."""
    host: str
    machine: str
    """Tells machines and containers of the same name apart."""
    pid: int
    process_started: float
    """When the process began: its number is given to another one some day."""
    expires: float
    """Seconds since 1970."""

    @classmethod
    def this_process(cls, run: str, seconds: float, nonce: str = "") -> Self:
        started = psutil.Process().create_time()
        return cls(run, nonce, socket.gethostname(), _machine(), os.getpid(), started, time.time() + seconds)

    def is_dead(self) -> bool:
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
    """Have the lock of `folder` within the block; raises `Busy` where a living run has it."""
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
    """The lock of a state, in the hands of one run."""

    def __init__(self, folder: Location, run: str, seconds: float) -> None:
        self.taken_from: Owner | None = None
        """The dead run that had it."""
        self._folder, self._file = folder, folder / LOCK
        self._run, self._nonce, self._seconds = run, uuid.uuid4().hex, seconds

    def acquire(self) -> None:
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
        """Put the expiry off again and again."""
        while not ended.wait(self._seconds / _RENEWALS):
            with suppress(OSError), self._alone():  # the next one may do
                if not self._is_ours():
                    return
                self._write()

    @contextmanager
    def ours(self) -> Iterator[None]:
        """A block, to be short, in which nobody takes the lock over. Raises `Busy` if someone did before."""
        with self._alone():
            self._require_ownership()
            yield

    def release(self) -> None:
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
        except (ValueError, TypeError, OSError):  # no lock file, or removed since
            return None

    def _write(self) -> None:
        self._file.write(json.dumps(asdict(Owner.this_process(self._run, self._seconds, self._nonce))).encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process of this file system is within this block. Its end frees the guard, if by death."""
        if not self._folder.is_local:
            yield
            return
        guard = Path((self._folder / GUARD).path)
        guard.parent.mkdir(parents=True, exist_ok=True)
        with guard.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _machine() -> str:
    """The boot and the process namespace (Linux; elsewhere the name): what process numbers mean something within."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
