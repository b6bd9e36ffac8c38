"""Tables for the terminal with the progress of a folder's sweeps."""

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from pitfalls.experiment.cli import existing_folder
from pitfalls.results.formats import Table
from pitfalls.runs.sweeps import (
    STATES,
    SWEEPS,
    Job,
    State,
    Sweep,
    failed_overrides,
    left_s,
    read_sweeps,
    run_dirs,
    state_of,
    summary,
)
from pitfalls.schemas import ConfigError, printable

MAX_COMMAND = 4096
"""Largest number of characters of a command that is shown."""

RUN_NAME = re.compile(
    r"(?P<objective>\w+)-(?P<model>.+)-g(?P<d>\d+)_(?P<l>\d+)-n(?P<n>\d+)-(online|fixed\d+)-s(?P<seed>\d+)-[0-9a-f]{12}"
)
"""The parts of a run's name (`pitfalls.runs.run_folder.run_name`)."""
IN_NAMES = ("experiment", "objective", "model", "model.name", "task", "seed", "task.degree", "task.path_length", "task.n_values")
"""Keys and groups that names of runs tell, so the words of a sweep need not."""
MAX_LISTED = 3
"""Largest number of values that the words of a sweep list."""


def sweeps_of(runs_dir: Path) -> list[Sweep]:
    """Return the sweeps that were started in a folder, the latest first. If there are none, all its runs are one sweep.

    Raises:
        ConfigError: there is no such folder, or no run in it.
    """
    existing_folder(runs_dir, "give the folder of the runs, as runs_dir=FOLDER named it")
    sweeps = list(read_sweeps(runs_dir)) or [Sweep(tuple(Job((), path) for path in run_dirs(runs_dir)))]
    if not sweeps[0].jobs:
        raise ConfigError(
            f"{runs_dir}: no run is there yet; give another folder, or train a run first (scripts/train.py runs_dir={runs_dir})"
        )
    return sweeps


def sweep_table(sweep: Sweep) -> Table | str:
    """Return a table of the runs that are not finished, or one line if all are."""
    states = [state_of(job.run_dir) for job in sweep.jobs]
    file = sweep.jobs[0].run_dir.parent / SWEEPS / f"{sweep.name}.json"
    place = f" ({SWEEPS}/{file.name})" if file.exists() else ""
    headline = f"{sweep_words(sweep)}: {len(states)} run{'' if len(states) == 1 else 's'}, {summary(states)}{place}"
    shown = sorted(zip(sweep.jobs, states, strict=True), key=lambda pair: STATES.index(pair[1].name))
    rows = tuple(_row(job, state) for job, state in shown if state.name != "finished")
    note = f"time left: {_time(left_s(states)) or 'unknown'}"
    return Table(headline, ("run", "state", "steps", "left", "note"), rows, note) if rows else headline


def sweep_words(sweep: Sweep) -> str:
    """Return what the runs of a sweep are, in words: objectives, models, graphs, seeds, and the values of other keys that differ.

    Folders with names that no run is given count as other runs.
    """
    found = [named.groupdict() for job in sweep.jobs if (named := RUN_NAME.fullmatch(job.run_dir.name))]
    if not found:
        return sweep.jobs[0].run_dir.name
    graphs = [f"G({run['d']},{run['l']}) N={run['n']}" for run in found]
    words = [
        _listed([run["objective"] for run in found], "objectives"),
        _listed([run["model"] for run in found], "models"),
        _listed(graphs, "graphs"),
        _seeds(sorted({int(run["seed"]) for run in found})),
        *(f"{key}={_listed(values, 'values')}" for key, values in _differing(sweep).items()),
    ]
    if others := len(sweep.jobs) - len(found):
        words.append(f"{others} other")
    return "; ".join(words)


def _seeds(seeds: Sequence[int]) -> str:
    """Return different seeds in words."""
    if len(seeds) > MAX_LISTED:
        return f"{len(seeds)} seeds"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _listed(values: Sequence[str], what: str) -> str:
    """Return the different values as a list, or how many there are."""
    different = list(dict.fromkeys(values))
    return ", ".join(different) if len(different) <= MAX_LISTED else f"{len(different)} {what}"


def _differing(sweep: Sweep) -> dict[str, list[str]]:
    """Return the overrides whose values differ between the jobs, without those that the names of runs tell."""
    values: dict[str, list[str]] = {}
    for job in sweep.jobs:
        for key, is_one, value in (override.partition("=") for override in job.overrides):
            if is_one and key not in IN_NAMES:
                values.setdefault(key, []).append(value)
    return {key: found for key, found in values.items() if len(set(found)) > 1}


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
    command = f"python scripts/train.py {shlex.join(overrides)}".rstrip()
    if command != printable(command, MAX_COMMAND):
        return "its command has characters that do not print: give the one that started it"
    return command
