"""Waiting times of a user in seconds, in new processes: an import, a help text, a job, and one more job of a sweep."""

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.new_process import run_python
from benchmarks.timing import Line, Measure
from pitfalls.experiment.config import ROOT
from pitfalls.runs import run_folder

IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"
TRAIN = str(ROOT / "scripts" / "train.py")
JOB = (
    "model=gpt_nano",
    "task=g2_3",
    "task.test_graphs=16",
    "training.n_threads=1",
    "training.batch_size=2",
    "training.n_steps=1",
    "training.warmup_steps=0",
)
N_JOBS = 6
"""Number of jobs of the long sweep, whose time is compared with that of a sweep of one job."""


def lines(rounds: int, folder: Path) -> list[Line]:
    """Return all lines to measure. The runs of the sweeps go into ``folder``."""
    measures = {
        "torch": importing("torch"),
        "import": importing("pitfalls"),
        "help": asking_for_help,
        "job": one_job(folder / "job"),
        "sweep_job": one_job_more(folder / "sweep"),
    }
    return [Line(f"startup/{name}", "s", measure, rounds, elsewhere=True) for name, measure in measures.items()]


def importing(module: str) -> Measure:
    """Return the seconds of an import, without the start of Python itself."""
    return lambda: [float(run_python(["-c", IMPORT.format(module)]))]


def asking_for_help() -> list[float]:
    """Return the seconds of ``python scripts/train.py --help``, the start of Python included."""
    return [_seconds([TRAIN, "--help"])]


def one_job(folder: Path) -> Measure:
    """Return the seconds of a sweep of one job, the start of Python and the training of a step included."""

    def measured() -> list[float]:
        shutil.rmtree(folder, ignore_errors=True)
        return [_seconds(_sweep(folder, 1))]

    return measured


def one_job_more(folder: Path) -> Measure:
    """Return the seconds that one more job adds to a sweep, without its training: config, data, model, record and display."""

    def measured() -> list[float]:
        shutil.rmtree(folder, ignore_errors=True)
        short, long = (_seconds(_sweep(folder / str(n), n)) for n in (1, N_JOBS))
        trained = [run_folder.read_summary(path.parent).wall_s for path in (folder / str(N_JOBS)).glob("*/record.json")]
        return [(long - short) / (N_JOBS - 1) - statistics.mean(trained)]

    return measured


def _sweep(folder: Path, n_jobs: int) -> list[str]:
    seeds = ",".join(map(str, range(n_jobs)))
    return [TRAIN, "-m", f"seed={seeds}", f"runs_dir={folder}", *JOB]


def _seconds(arguments: Sequence[str]) -> float:
    began = time.perf_counter()
    run_python(arguments)
    return time.perf_counter() - began
