"""Trains a named set of runs, several at a time, and makes its table and figure.

Every run is a process of its own (``scripts/train.py`` on one thread), so small models fill all cores better than one
run on many threads would. This module never trains: it starts processes, follows their ``metrics.jsonl``, and collects
their records. What is finished is not trained again, what was stopped continues.
"""

import copy
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from pitfalls.experiment.build import build
from pitfalls.experiment.config import CONF, ROOT, resolve, run_dir_of
from pitfalls.experiment.hydra_app import compose
from pitfalls.results.kept import Result, keep, read_kept, read_result, record_file
from pitfalls.results.plans import Cell, Plan, read_plan
from pitfalls.runs import run_folder
from pitfalls.runs.files import decode
from pitfalls.runs.records import MetricsRow
from pitfalls.schemas import Config, ConfigError

POLL_S = 0.5
TYPICAL_SAMPLES_PER_S = 500
"""For the order of runs of which no record is kept."""


@dataclass
class PlannedRun:
    """One run of a set, and its process while it trains."""

    cell: Cell
    config: Config
    run_dir: Path
    target: Path
    """Where its record is kept."""
    process: subprocess.Popen[bytes] | None = None
    _read: int = field(default=0, repr=False)

    @property
    def title(self) -> str:
        """What the displays call it."""
        return f"{self.cell.name} s{self.config.seed}"

    @property
    def n_samples(self) -> int:
        """Rows that it will train on, if nothing stops it early."""
        return self.config.training.n_samples

    @property
    def finished(self) -> bool:
        """Whether it has left its record."""
        return run_folder.is_finished(self.run_dir)

    def start(self, overrides: Sequence[str]) -> None:
        """Train in the background; what the process prints goes to ``train.log`` of the run's folder."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(self.config.training.n_threads)}
        with (self.run_dir / "train.log").open("ab") as log:
            command = [sys.executable, str(ROOT / "scripts" / "train.py"), *overrides]
            # a session of its own: Ctrl-C reaches this process alone, which then asks each run to save, once
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def new_rows(self) -> list[MetricsRow]:
        """Whole lines of ``metrics.jsonl`` since the last call."""
        path = self.run_dir / run_folder.METRICS
        if not path.exists():
            return []
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

    def last_words(self) -> str:
        """The last line that a failed process printed."""
        lines = (self.run_dir / "train.log").read_text().strip().splitlines()
        return lines[-1] if lines else "no output"

    def estimated_s(self) -> float | None:
        """Seconds of a committed record of this cell, of its own seed if there is one; it holds for that record's machine."""
        others = sorted(self.target.parent.glob(re.sub(r"-s\d+\.", "-s*.", self.target.name)))
        kept = [path for path in (self.target, *others) if path.exists()]
        return read_kept(kept[0]).record.wall_s if kept else None


def plan_jobs(plan: Plan, runs_dir: Path, results_dir: Path, smoke: bool = False, only: int | None = None) -> list[PlannedRun]:
    """The runs of a set, in its order.

    Args:
        plan: which cells and seeds.
        runs_dir: where run folders are made.
        results_dir: where records, table and figure go.
        smoke: shrink every run to a few steps, to try the machinery.
        only: the number of one run.

    Raises:
        ConfigError: a preset is wrong, or there is no run of that number; raised before anything is trained.
    """
    runs = [(cell, seed) for cell in plan.cells for seed in cell.seeds]
    if only is not None and not 0 <= only < len(runs):
        raise ConfigError(f"--only {only}: {plan.name} has runs 0 to {len(runs) - 1}; --dry-run lists them")
    jobs, composed = [], {}
    for cell, seed in runs if only is None else [runs[only]]:
        if cell.name not in composed:
            composed[cell.name] = resolve(compose(overrides(cell, seed, runs_dir, smoke)))
        config = replace(composed[cell.name], seed=seed)
        jobs.append(PlannedRun(cell, config, run_dir_of(config), record_file(results_dir, cell, seed)))
    return jobs


def overrides(cell: Cell, seed: int, runs_dir: Path, smoke: bool = False) -> list[str]:
    """The command line of one run."""
    line = [f"experiment={cell.experiment}", *cell.overrides, f"seed={seed}", f"runs_dir={runs_dir}"]
    if smoke:
        line += [
            "training.n_steps=12",
            "training.warmup_steps=2",
            "training.decay_steps=null",
            "training.eval_every_steps=6",
            "training.eval_graphs=100",
            "task.test_graphs=200",
        ]
    return line


@dataclass(frozen=True)
class RunCost:
    """Of a run, on paper."""

    n_parameters: int
    flop: float
    """6 x parameters x all tokens, prompt included (Kaplan et al. 2020)."""


def training_costs(jobs: Sequence[PlannedRun]) -> list[RunCost]:
    """Parameters, counted on the model unless the plan states them, and nominal FLOP of each whole run."""
    import torch

    from pitfalls.tasks.path_star import PathStar

    counted: dict[str, int] = {}
    costs = []
    for job in jobs:
        task = PathStar(job.config.task.degree, job.config.task.path_length, job.config.task.n_values)
        key = f"{job.config.model} {task} {task.n_values}"
        n = job.cell.parameters or counted.get(key)
        if n is None:
            shapes_only = copy.deepcopy(job.config)
            shapes_only.training.device = "meta"  # no run can be given this one
            with torch.device("meta"):
                n = counted[key] = sum(p.numel() for p in build(shapes_only).trunk.parameters())
        costs.append(RunCost(n, 6 * n * task.sequence_length * job.n_samples))
    return costs


class Display:
    """What the user sees while a set trains; see ``scripts/reproduce.py`` for the two kinds."""

    def row(self, job: PlannedRun, row: MetricsRow) -> None:
        """A line of a run's metrics."""

    def done(self, job: PlannedRun, message: str) -> None:
        """A run ended."""


def train(
    jobs: Sequence[PlannedRun], n_workers: int, display: Display, command: Callable[[PlannedRun], Sequence[str]]
) -> list[str]:
    """Train what is not finished, n_workers at a time. Returns what failed, in words.

    Raises:
        KeyboardInterrupt: on SIGINT or SIGTERM, after every process has saved and ended.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    waiting = [job for job in jobs if not job.finished]
    waiting.sort(key=lambda job: job.estimated_s() or job.n_samples / TYPICAL_SAMPLES_PER_S, reverse=True)
    running: list[PlannedRun] = []
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and len(running) < n_workers:
                running.append(waiting.pop(0))
                running[-1].start(command(running[-1]))
            time.sleep(POLL_S)
            running = [job for job in running if _follow(job, display, failed)]
    except KeyboardInterrupt:
        _stop(running)
        raise
    return failed


def _follow(job: PlannedRun, display: Display, failed: list[str]) -> bool:
    """Show a run's news; whether it is still running."""
    assert job.process is not None
    status = job.process.poll()
    for row in job.new_rows():
        display.row(job, row)
    if status is None:
        return True
    if status == 0 and job.finished:
        display.done(job, "finished")
    else:
        failed.append(f"{job.title}: {job.last_words()} (status {status}, see {job.run_dir / 'train.log'})")
        display.done(job, f"failed: {job.last_words()}")
    return False


def _stop(running: Sequence[PlannedRun]) -> None:
    """Let every process finish its step and save."""
    for job in running:
        if job.process is not None and job.process.poll() is None:
            job.process.send_signal(signal.SIGTERM)
    for job in running:
        if job.process is not None:
            job.process.wait()


def collect(jobs: Sequence[PlannedRun]) -> list[Result]:
    """Keep the records of all finished runs with the results, and return those: none that an earlier set-up left there."""
    finished = [job for job in jobs if job.finished]
    for job in finished:
        keep(job.run_dir, job.target)
    return [read_result(job.cell, job.target) for job in finished]


def load_plan(name: str) -> Plan:
    """One set of ``conf/reproduce.yaml``."""
    return read_plan(CONF / "reproduce.yaml", name)
