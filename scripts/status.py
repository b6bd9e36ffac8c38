"""A sweep at a glance: which runs are finished, running, failed (and why), stopped or waiting, and the time left.

    python scripts/status.py            the sweeps of runs/, the latest first; without any, all its runs
    python scripts/status.py RUNS_DIR --failed

Reads what the runs leave behind and changes nothing, so it can be called while any number of sweeps run.
"""

import argparse
import statistics
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pitfalls.experiment.cli import exit_on_error
from pitfalls.runs.sweeps import STATES, Job, State, Sweep, read_sweeps, run_dirs, state_of, summary
from pitfalls.schemas import ConfigError


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs_dir", type=Path, nargs="?", default=Path("runs"), help="where the runs are (default: runs)")
    parser.add_argument("--failed", action="store_true", help="list failed runs alone, each with the command that tries it again")
    return parser.parse_args()


def main() -> None:
    """Print every sweep."""
    args = arguments()
    if not args.runs_dir.is_dir():
        raise ConfigError(f"{args.runs_dir}: no such folder; give the one that runs_dir named")
    sweeps = list(read_sweeps(args.runs_dir)) or [Sweep(tuple(Job((), path) for path in run_dirs(args.runs_dir)))]
    if not sweeps[0].jobs:
        raise ConfigError(f"{args.runs_dir}: no run is there yet")
    console = Console()
    for sweep in sweeps:
        states = [state_of(job.run_dir) for job in sweep.jobs]
        if args.failed:
            for job, state in zip(sweep.jobs, states, strict=True):
                if state.name == "failed":
                    print(f"{job.run_dir}: {state.note}\n    python scripts/train.py {' '.join(job.overrides)}")
        else:
            console.print(as_table(sweep, states) if any(s.name != "finished" for s in states) else headline(sweep, states))


def headline(sweep: Sweep, states: Sequence[State]) -> str:
    """How many runs are in which state."""
    return f"{sweep.name}: {len(states)} runs, {summary(states)}"


def as_table(sweep: Sweep, states: Sequence[State]) -> Table:
    """Every run that is not finished, under one line about all of them."""
    table = Table(title=headline(sweep, states), title_justify="left")
    for name in ("run", "state", "steps", "left", "note"):
        table.add_column(name, overflow="fold")
    shown = sorted(zip(sweep.jobs, states, strict=True), key=lambda pair: STATES.index(pair[1].name))
    for job, state in shown:
        if state.name != "finished":
            steps = f"{state.step:,}" + (f" of {state.n_steps:,}" if state.n_steps else "")
            table.add_row(job.run_dir.name, state.name, steps if state.step else "", _time(state.left_s), escape(state.note))
    table.caption = f"time left: {_time(left_s(states)) or 'unknown'}"
    table.caption_justify = "left"
    return table


def left_s(states: Sequence[State]) -> float | None:
    """Seconds until all are finished: running ones at their speed, the others as long as the mean, as many at a time as now."""
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


def _time(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


if __name__ == "__main__":
    exit_on_error(main)
