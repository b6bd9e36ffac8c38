"""Training of a named set of runs, several at a time, and the collection of their records.

Every run is a process of its own, ``scripts/train.py`` on one thread: several small models fill the cores better than one model
on many threads. This module never trains. It starts processes, follows their ``metrics.jsonl`` and collects their records. A
finished run is not trained again, and a stopped one continues.
"""

import copy
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Protocol

from pitfalls.experiment.build import build
from pitfalls.experiment.config import CONF, ROOT, resolve, run_dir_of
from pitfalls.experiment.hydra_app import compose, override
from pitfalls.report.argument import sentence
from pitfalls.results.kept import Kept, Result, keep, read_kept, read_result, record_file
from pitfalls.results.plans import Cell, Plan, read_plan
from pitfalls.runs import run_folder
from pitfalls.runs.files import check_plain, decode, read_bytes
from pitfalls.runs.records import MetricsRow
from pitfalls.schemas import Config, ConfigError

POLL_S = 0.5
TYPICAL_SAMPLES_PER_S = 500
"""The assumed speed of runs without a committed record. It decides the order of starts only."""
TRAIN_LOG = "train.log"
PLANS = "reproduce.yaml"
SMOKE = (
    "training.n_steps=12",
    "training.warmup_steps=2",
    "training.decay_steps=null",
    "training.eval_every_steps=6",
    "training.eval_graphs=100",
    "task.test_graphs=200",
)
"""Overrides for a very short run, which shows only that the code works."""


@dataclass
class PlannedRun:
    """A run of a set, and its process while it trains."""

    cell: Cell
    config: Config
    overrides: Sequence[str]
    """The command line of ``scripts/train.py``."""
    run_dir: Path
    committed: Path
    """Path of the committed record of the same cell and seed. The file need not exist."""
    process: subprocess.Popen[bytes] | None = None
    _read: int = field(default=0, repr=False)

    @property
    def title(self) -> str:
        """The name in displays: cell and seed."""
        return f"{self.cell.name} s{self.config.seed}"

    @property
    def n_samples(self) -> int:
        """Number of training samples, if nothing stops the run early."""
        return self.config.training.n_samples

    @property
    def finished(self) -> bool:
        """Whether the run has its record."""
        return run_folder.is_finished(self.run_dir)

    def start(self) -> None:
        """Train in the background. The output of the process goes to ``train.log`` in the folder of the run."""
        run_folder.check_kinds(self.run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(self.config.training.n_threads)}
        with (self.run_dir / TRAIN_LOG).open("ab") as log:
            command = [sys.executable, str(ROOT / "scripts" / "train.py"), *self.overrides]
            # a session of its own: Ctrl-C reaches only this process, which then asks each run to save, once
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def new_rows(self) -> list[MetricsRow]:
        """Return the complete rows of ``metrics.jsonl`` since the last call."""
        path = self.run_dir / run_folder.METRICS
        if not path.exists():
            return []
        check_plain(path)
        with path.open() as file:
            return self._lines(file)

    def _lines(self, file: IO[str]) -> list[MetricsRow]:
        if os.fstat(file.fileno()).st_size < self._read:
            self._read = 0
        file.seek(self._read)
        text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._read += len(whole.encode())
        return [decode(line.encode(), run_folder.METRICS_ROW, self.run_dir / run_folder.METRICS) for line in whole.splitlines()]

    def last_line(self) -> str:
        """Return the last line that the process printed."""
        lines = read_bytes(self.run_dir / TRAIN_LOG).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"

    def estimated_s(self) -> float | None:
        """Return the seconds that a committed run of this cell took, if possible with the same seed.

        It is the time on the machine that made the record. The result is None if no run of the cell is committed.

        Raises:
            FileError: the committed record cannot be read.
        """
        others = sorted(self.committed.parent.glob(re.sub(r"-s\d+\.", "-s*.", self.committed.name)))
        kept = [path for path in (self.committed, *others) if path.exists()]
        return read_kept(kept[0]).record.wall_s if kept else None


def load_plan(name: str) -> Plan:
    """Return a set of ``conf/reproduce.yaml``."""
    return read_plan(CONF / PLANS, name)


def plan_runs(
    plan: Plan, runs_dir: Path, committed_dir: Path, *, smoke: bool = False, only: int | None = None
) -> list[PlannedRun]:
    """Return the runs of a set, in its order.

    Args:
        plan: the set, with its cells and seeds.
        runs_dir: where the folders of runs are made.
        committed_dir: the committed results of the set.
        smoke: shrink every run to a few steps, to try the machinery.
        only: the number of the only run that is returned. None returns all.

    Raises:
        ConfigError: a preset is wrong (the message names set and cell), or no run has this number. Nothing has been trained.
    """
    places = [(cell, seed) for cell in plan.cells for seed in cell.seeds]
    if only is not None and not 0 <= only < len(places):
        raise ConfigError(f"--only {only}: {plan.name} has runs 0 to {len(places) - 1}; --dry-run lists them")
    runs, resolved = [], {}
    for cell, seed in places if only is None else [places[only]]:
        overrides = [f"experiment={cell.experiment}", *cell.overrides, f"seed={seed}", override("runs_dir", runs_dir)]
        overrides += SMOKE if smoke else ()
        if cell.name not in resolved:  # seeds of a cell differ in nothing else
            try:
                resolved[cell.name] = resolve(compose(overrides))
            except ConfigError as error:
                raise ConfigError(f"{PLANS}: {plan.name}: {cell.name}: {error}") from None
        config = replace(resolved[cell.name], seed=seed)
        runs.append(PlannedRun(cell, config, overrides, run_dir_of(config), record_file(committed_dir, cell, seed)))
    return runs


@dataclass(frozen=True)
class RunCost:
    """The size and the nominal cost of a run."""

    n_parameters: int
    flop: float
    """6 x parameters x all tokens, prompt included (Kaplan et al. 2020)."""


def run_costs(runs: Sequence[PlannedRun]) -> list[RunCost]:
    """Return the costs of whole runs. Parameters are counted on the model, unless the plan states their number."""
    from pitfalls.tasks.path_star import PathStar

    counted: dict[str, int] = {}
    costs = []
    for run in runs:
        n = run.cell.parameters or counted.get(key := f"{run.config.model} {run.config.task}")
        if n is None:
            n = counted[key] = _count_parameters(run.config)
        task = PathStar(run.config.task.degree, run.config.task.path_length, run.config.task.n_values)
        costs.append(RunCost(n, 6 * n * task.sequence_length * run.n_samples))
    return costs


def _count_parameters(config: Config) -> int:
    """Return the number of parameters of a config's trunk, which is built without memory for weights."""
    import torch

    shapes_only = copy.deepcopy(config)
    shapes_only.training.device = "meta"  # no run can be given this one
    with torch.device("meta"):
        return sum(p.numel() for p in build(shapes_only).trunk.parameters())


class SetDisplay(Protocol):
    """A display of the progress of a set's runs. See `pitfalls.experiment.run_set_display`."""

    def row(self, run: PlannedRun, row: MetricsRow) -> None:
        """Show a row of a run's metrics."""

    def done(self, run: PlannedRun, message: str) -> None:
        """Show that a run has ended."""


def train(runs: Sequence[PlannedRun], n_workers: int, display: SetDisplay) -> list[str]:
    """Train the runs that are not finished, n_workers at a time, and return the failures in words.

    Raises:
        KeyboardInterrupt: on SIGINT, after every process has saved and ended.
    """
    waiting = [run for run in runs if not run.finished]
    waiting.sort(key=lambda run: run.estimated_s() or run.n_samples / TYPICAL_SAMPLES_PER_S, reverse=True)
    running: list[PlannedRun] = []
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and len(running) < n_workers:
                running.append(waiting.pop(0))
                running[-1].start()
            time.sleep(POLL_S)
            running = [run for run in running if _follow(run, display, failed)]
    except KeyboardInterrupt:
        _stop(running)
        raise
    return failed


def _follow(run: PlannedRun, display: SetDisplay, failed: list[str]) -> bool:
    """Show new rows of a run, and return whether it is still running."""
    assert run.process is not None
    status = run.process.poll()
    for row in run.new_rows():
        display.row(run, row)
    if status is None:
        return True
    if status == 0 and run.finished:
        display.done(run, sentence(Kept(run_folder.read_record(run.run_dir), ())))
    else:
        failed.append(f"{run.title}: {run.last_line()} (status {status}, see {run.run_dir / TRAIN_LOG})")
        display.done(run, f"failed: {run.last_line()}")
    return False


def _stop(running: Sequence[PlannedRun]) -> None:
    """Stop all processes. Each finishes its step and saves."""
    for run in running:
        if run.process is not None and run.process.poll() is None:
            run.process.terminate()
    for run in running:
        if run.process is not None:
            run.process.wait()


def name_of(result: Result) -> str:
    """Return the name of a run in displays: cell and seed."""
    return f"{result.cell.name} s{result.seed}"


def read_committed(runs: Sequence[PlannedRun]) -> dict[str, Result]:
    """Return the committed results of runs by name. Runs without a committed record are left out.

    Raises:
        FileError: a committed record cannot be read.
    """
    found = [read_result(run.cell, run.committed) for run in runs if run.committed.exists()]
    return {name_of(result): result for result in found}


def collect(runs: Sequence[PlannedRun], folder: Path) -> list[Result]:
    """Write the records of all finished runs to ``records/`` of a folder, and return them.

    Other records in the folder are not returned.
    """
    results = []
    for run in runs:
        if run.finished:
            target = record_file(folder, run.cell, run.config.seed)
            keep(run.run_dir, target)
            results.append(read_result(run.cell, target))
    return results
