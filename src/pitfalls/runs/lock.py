"""One process per run: the process that trains a run holds a lock of the operating system on its folder.

The kernel releases the lock when the process ends, whatever ends it. So no lock is ever stale, and no clock has to be trusted.
``running.json`` beside it only shows people who holds it.
"""

import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout
from msgspec import Struct

from pitfalls.runs.files import FileError, read_json, write_json
from pitfalls.schemas import PitfallsError

LOCK, HOLDER = "running.lock", "running.json"
PATIENCE_S = 1.0
"""Seconds that a new run waits for the lock, because `is_running` holds it for an instant."""


class Holder(Struct, forbid_unknown_fields=True):
    """The process that trains a run."""

    host: str
    pid: int
    since: str
    """Time of the start in UTC."""
    n_steps: int
    """Optimizer steps of the whole run."""


class RunTakenError(PitfallsError):
    """Another process trains this run."""


class RunLock:
    """The lock of a run, held while it is trained.

    Raises (when entered):
        RunTakenError: another process, here or on another machine that shares the folder, holds it.
    """

    def __init__(self, run_dir: Path, n_steps: int) -> None:
        self.run_dir, self.n_steps = run_dir, n_steps
        self._lock = FileLock(run_dir / LOCK, timeout=PATIENCE_S)

    def __enter__(self) -> "RunLock":
        try:
            self._lock.acquire()
        except Timeout:
            holder = read_holder(self.run_dir)
            who = f"process {holder.pid} on {holder.host} since {holder.since}" if holder else "another process"
            raise RunTakenError(f"{self.run_dir}: {who} is training this run; wait until it ends, or stop it first") from None
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = Holder(host=socket.gethostname(), pid=os.getpid(), since=since, n_steps=self.n_steps)
        write_json(self.run_dir / HOLDER, holder)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            (self.run_dir / HOLDER).unlink(missing_ok=True)
        self._lock.release()


def is_running(run_dir: Path) -> bool:
    """Whether a process holds the lock of a run at this moment."""
    if (run_dir / LOCK).is_symlink() or not (run_dir / LOCK).is_file():
        return False
    lock = FileLock(run_dir / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # we may not lock a folder of another user
        return (run_dir / HOLDER).exists()
    lock.release()
    return False


def read_holder(run_dir: Path) -> Holder | None:
    """Return the process that trains a run according to ``running.json``, or None if it cannot be read.

    The file may be left over from a process that was killed.
    """
    try:
        return read_json(run_dir / HOLDER, Holder)
    except (OSError, FileError):
        return None
