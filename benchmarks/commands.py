"""The measurements of ``scripts/benchmark.py``: their options, the measuring itself, and their tables."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks import gpu_roofline, objective_speed, step_scaling, suite
from pitfalls.experiment.cli import console, terminal_table
from pitfalls.experiment.config import ROOT
from pitfalls.experiment.run_sets import load_plan
from pitfalls.report import race as lookup_race
from pitfalls.report import roofline_table, scaling_tables, speed
from pitfalls.report.measurements import Roofline, Scaling, Speed, StepTimes
from pitfalls.results.formats import Table
from pitfalls.results.kept import read_results
from pitfalls.schemas import ConfigError
from pitfalls.training.device import prepare_process

Measured = Speed | StepTimes | Scaling | Roofline


def check_options(kind: str, quick: bool, output: Path | None) -> None:
    """Raise an error for wrong options, before anything is measured.

    Raises:
        ConfigError: the message names the option and the remedy.
    """
    if quick and kind != "speed":
        raise ConfigError(f"--quick: {kind} has no quick version; leave --quick out")
    if output is not None and kind == "race":
        raise ConfigError("--output: race has no file of values; its records go to runs/results/race, leave --output out")
    if output is None:
        return
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {output.parent}; make it first")
    if output.is_dir():
        raise ConfigError(f"--output {output}: this is a folder; name a file in it")
    if not os.access(output.parent, os.W_OK):
        raise ConfigError(f"--output {output}: the folder {output.parent} cannot be written to; choose another one")


def measure(kind: str, quick: bool, n_threads: int) -> Measured:
    """Measure, and return the results. ``kind`` is ``speed``, ``objectives``, ``scaling`` or ``roofline``."""
    os.environ["OMP_NUM_THREADS"] = str(n_threads)  # processes that the benchmark starts get as many threads as this one
    prepare_process(n_threads)
    if kind == "roofline":
        return gpu_roofline.on_paper(gpu_roofline.H100)
    with tempfile.TemporaryDirectory() as folder:
        if kind == "scaling":
            return step_scaling.measure(Path(folder))
        if kind == "objectives":
            return objective_speed.measure(Path(folder))
        return suite.measure(quick, Path(folder))


def race() -> int:
    """Train the runs of the race that are missing, print its table, and return the exit status of ``scripts/reproduce.py``."""
    status = subprocess.run([sys.executable, str(ROOT / "scripts" / "reproduce.py"), lookup_race.NAME], check=False).returncode
    show(lookup_race.tables(read_results(ROOT / "runs" / "results" / lookup_race.NAME, load_plan(lookup_race.NAME))))
    return status


def tables(measured: Measured) -> dict[str, Table]:
    """Return the tables of a measurement by name."""
    match measured:
        case Speed():
            return speed.tables(measured)
        case Scaling():
            return scaling_tables.tables(measured)
        case Roofline():
            return roofline_table.tables(measured)
        case StepTimes():
            return {"step_times": objective_speed.table(measured)}


def show(made: Mapping[str, Table]) -> None:
    """Print the tables."""
    for table in made.values():
        console().print(terminal_table(table))
