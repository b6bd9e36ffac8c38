"""Sweeps: the runs that belong to one, and how far each run is. The folders of the runs show it.

The list of a sweep's jobs is kept in ``runs/sweeps/<name>.json``. The name is made from the runs, so the same
sweep has one file however often it is started. Processes share nothing else, so several may work on the same runs.
"""

import hashlib
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from pitfalls.runs import run_folder
from pitfalls.runs.counts import Name, Natural, Text
from pitfalls.runs.files import FileError, check_plain, decode, read_json, write_json
from pitfalls.runs.lock import LOCK, is_running, read_holder
from pitfalls.runs.records import Failure
from pitfalls.schemas import PitfallsError

SWEEPS = "sweeps"
RUN_FILES = (run_folder.CONFIG, run_folder.METRICS, run_folder.RECORD, run_folder.FAILURE, LOCK)
"""Files that make a folder a run: it has at least one of them. Other folders, such as ``results/``, have none."""
TAIL_BYTES = 2**16
"""Bytes at the end of ``metrics.jsonl`` that are read for the speed of a run."""
STATES = ("finished", "running", "failed", "stopped", "waiting")
"""States of a run. A stopped run was interrupted. It continues when the same command is given again."""


class SweepIncompleteError(PitfallsError):
    """A sweep has ended and some of its runs have not. The same command continues."""


class _Step(Struct):
    """The fields of a row of ``metrics.jsonl`` that the speed is computed from."""

    step: Natural
    wall_s: float


class _JobEntry(Struct, forbid_unknown_fields=True):
    """A job in the file of its sweep."""

    overrides: tuple[Text, ...]
    run: Name


class _SweepEntry(Struct, forbid_unknown_fields=True):
    """The content of a sweep's file."""

    jobs: Annotated[list[_JobEntry], Meta(min_length=1)]


@dataclass(frozen=True)
class State:
    """The state of a run and its progress."""

    name: str
    """One of ``STATES``."""
    step: int = 0
    n_steps: int | None = None
    """Number of optimizer steps of the whole run, known while it is running."""
    steps_per_s: float | None = None
    wall_s: float = 0.0
    """Seconds of training so far. For a finished run, seconds in total."""
    note: str = ""
    """The process that trains it, or the reason why it failed."""

    @property
    def left_s(self) -> float | None:
        """Seconds until the run ends, if nothing stops it early."""
        if self.n_steps is None or not self.steps_per_s:
            return None
        return (self.n_steps - self.step) / self.steps_per_s


def state_of(run_dir: Path) -> State:
    """Return the state of a folder's run. A run without a folder is waiting."""
    if run_folder.is_finished(run_dir):
        return _finished(run_dir)
    running = is_running(run_dir)
    rows = _last_steps(run_dir)
    step, wall_s = (rows[-1].step, rows[-1].wall_s) if rows else (0, 0.0)
    if running:
        holder = read_holder(run_dir)
        seconds = rows[-1].wall_s - rows[0].wall_s if rows else 0.0
        speed = (rows[-1].step - rows[0].step) / seconds if seconds > 0 else None
        note = f"{holder.host}, process {holder.pid}" if holder else ""
        return State("running", step, holder.n_steps if holder else None, speed, wall_s, note)
    if (run_dir / run_folder.FAILURE).exists():
        return State("failed", step, wall_s=wall_s, note=_failure(run_dir))
    return State("stopped" if step or (run_dir / run_folder.CONFIG).exists() else "waiting", step, wall_s=wall_s)


def _finished(run_dir: Path) -> State:
    """Return the state of a run with a record. A run whose record cannot be read counts as failed."""
    try:
        return State("finished", wall_s=run_folder.read_summary(run_dir).wall_s)
    except (OSError, FileError) as error:
        return State("failed", note=f"{run_folder.RECORD} cannot be read ({error})")


def _failure(run_dir: Path) -> str:
    try:
        return read_json(run_dir / run_folder.FAILURE, Failure).error.splitlines()[0]
    except (OSError, FileError, IndexError) as error:
        return f"{run_folder.FAILURE} cannot be read ({error})"


def failed_overrides(run_dir: Path) -> list[str] | None:
    """Return the overrides that started a failed run, or None if its ``failure.json`` cannot be read."""
    try:
        return read_json(run_dir / run_folder.FAILURE, Failure).overrides
    except (OSError, FileError):
        return None


def _last_steps(run_dir: Path) -> list[_Step]:
    """Return the training rows at the end of ``metrics.jsonl``, without other rows."""
    path = run_dir / run_folder.METRICS
    try:
        check_plain(path)
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).splitlines()
    except (OSError, FileError):
        return []
    rows = []
    for line in lines:
        try:
            rows.append(decode(line, _Step, ""))
        except FileError:
            continue
    return rows


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    overrides: tuple[str, ...]
    run_dir: Path

    def text(self) -> str:
        """Return overrides, state and reason as text."""
        state = state_of(self.run_dir)
        return f"[{' '.join(self.overrides)}] {state.name}" + (f" ({state.note})" if state.note else "")


@dataclass(frozen=True)
class Sweep:
    """The runs that one command started."""

    jobs: tuple[Job, ...]

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> "Sweep":
        """Return the sweep of a list of jobs. Jobs with the same run count once."""
        return cls(tuple({job.run_dir: job for job in jobs}.values()))

    @property
    def name(self) -> str:
        """Eight hex digits, made from the set of runs alone."""
        runs = "\n".join(sorted(job.run_dir.name for job in self.jobs))
        return hashlib.sha256(runs.encode()).hexdigest()[:8]

    def by_folder(self) -> "dict[Path, Sweep]":
        """Return the part of the sweep in each folder of runs. There is more than one if it goes over ``runs_dir``."""
        folders = dict.fromkeys(job.run_dir.parent for job in self.jobs)
        return {folder: Sweep(tuple(job for job in self.jobs if job.run_dir.parent == folder)) for folder in folders}

    def write(self) -> None:
        """Write the list of jobs to each folder of runs, as `read_sweeps` reads it. A list names the runs of its folder."""
        for runs_dir, part in self.by_folder().items():
            folder = runs_dir / SWEEPS
            if os.path.lexists(folder) and not folder.is_dir():
                raise FileError(f"{folder}: a file, and the lists of sweeps are kept in a folder of this name; move it away")
            folder.mkdir(parents=True, exist_ok=True)
            jobs = [_JobEntry(job.overrides, job.run_dir.name) for job in part.jobs]
            write_json(folder / f"{part.name}.json", _SweepEntry(jobs))

    def to_train(self) -> list[Job]:
        """Return the jobs that are neither finished nor trained by another process at this moment."""
        return [job for job in self.jobs if not run_folder.is_finished(job.run_dir) and not is_running(job.run_dir)]

    def unfinished(self) -> list[Job]:
        """Return the jobs without a record that can be read, the failed ones first."""
        states = {job: state_of(job.run_dir).name for job in self.jobs}
        left = [job for job in self.jobs if states[job] != "finished"]
        return sorted(left, key=lambda job: states[job] != "failed")

    def summary(self) -> str:
        """Return how many runs are in which state, in words."""
        return summary([state_of(job.run_dir) for job in self.jobs])


def summary(states: Sequence[State]) -> str:
    """Return how many runs are in which state, in words."""
    counts = Counter(state.name for state in states)
    return ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])


def left_s(states: Sequence[State]) -> float | None:
    """Return an estimate of the seconds until all runs are finished, or None if that is not known.

    It assumes that running runs keep their speed, that the others take the mean time of a run, and that the number of
    processes stays the same.
    """
    running = [state for state in states if state.name == "running"]
    known = [state.left_s for state in running if state.left_s is not None]
    n_todo = sum(state.name in ("failed", "stopped", "waiting") for state in states)
    durations = [state.wall_s for state in states if state.name == "finished"]
    durations += [state.wall_s + state.left_s for state in running if state.left_s is not None]
    if not running and not n_todo:
        return 0.0
    if not durations or len(known) < len(running):
        return None
    total = sum(known) + n_todo * statistics.fmean(durations)
    return max([total / max(1, len(running)), *known])


def read_sweeps(runs_dir: Path) -> Iterator[Sweep]:
    """Yield the sweeps that were started in a folder, the latest first.

    Raises:
        FileError: a list of jobs cannot be read.
    """
    files = [path for path in (runs_dir / SWEEPS).glob("*.json") if re.fullmatch(r"[0-9a-f]{8}", path.stem)]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        entry = read_json(path, _SweepEntry)
        yield Sweep(tuple(Job(job.overrides, runs_dir / job.run) for job in entry.jobs))


def run_dirs(runs_dir: Path) -> list[Path]:
    """Return all folders of runs in a folder, sorted by name. Links, and folders without a file of `RUN_FILES`, are left out."""
    with os.scandir(runs_dir) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    folders = [runs_dir / name for name in sorted(names) if _is_name(name)]
    return [folder for folder in folders if any((folder / name).exists() for name in RUN_FILES)]


def _is_name(name: str) -> bool:
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        return False
    return True
