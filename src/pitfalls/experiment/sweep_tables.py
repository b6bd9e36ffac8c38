"""Tables for the terminal with the progress of a folder's sweeps."""

import shlex
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from pitfalls.experiment.cli import existing_folder
from pitfalls.results.formats import Table
from pitfalls.runs.sweeps import STATES, Job, State, Sweep, failed_overrides, left_s, read_sweeps, run_dirs, state_of, summary
from pitfalls.schemas import ConfigError, printable

MAX_COMMAND = 4096
"""Largest number of characters of a command that is shown."""


def sweeps_of(runs_dir: Path) -> list[Sweep]:
    """Return the sweeps that were started in a folder, the latest first. If there are none, all its runs are one sweep.

    Raises:
        ConfigError: there is no such folder, or no run in it.
    """
    existing_folder(runs_dir, "give the one that runs_dir named")
    sweeps = list(read_sweeps(runs_dir)) or [Sweep(tuple(Job((), path) for path in run_dirs(runs_dir)))]
    if not sweeps[0].jobs:
        raise ConfigError(f"{runs_dir}: no run is there yet")
    return sweeps


def sweep_table(sweep: Sweep) -> Table | str:
    """Return a table of the runs that are not finished, or one line if all are."""
    states = [state_of(job.run_dir) for job in sweep.jobs]
    headline = f"{sweep.name}: {len(states)} runs, {summary(states)}"
    shown = sorted(zip(sweep.jobs, states, strict=True), key=lambda pair: STATES.index(pair[1].name))
    rows = tuple(_row(job, state) for job, state in shown if state.name != "finished")
    note = f"time left: {_time(left_s(states)) or 'unknown'}"
    return Table(headline, ("run", "state", "steps", "left", "note"), rows, note) if rows else headline


def _row(job: Job, state: State) -> tuple[str, ...]:
    steps = f"{state.step:,}" + (f" of {state.n_steps:,}" if state.n_steps else "")
    return job.run_dir.name, state.name, steps if state.step else "", _time(state.left_s), state.note


def _time(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


def failed_runs(sweeps: Sequence[Sweep]) -> Iterator[str]:
    """Yield two lines for each failed run: its folder with the reason, and the command that tries it again."""
    for sweep in sweeps:
        for job in sweep.jobs:
            state = state_of(job.run_dir)
            if state.name == "failed":
                yield f"{job.run_dir}: {printable(state.note)}\n    {_command(job)}"


def _command(job: Job) -> str:
    """Return the shell command that tries a run again."""
    overrides = job.overrides or failed_overrides(job.run_dir)
    if overrides is None:
        return "its command is not known: give the one that started it"
    command = f"python scripts/train.py {shlex.join(overrides)}"
    if command != printable(command, MAX_COMMAND):
        return "its command has characters that do not print: give the one that started it"
    return command
