"""Runs that something happens to. Each is a process of its own, forked from the tests' (so it need not import torch again), and
is killed, stopped or starved for real; then the same command is given once more, and its numbers are compared.

The table of what was tried ends the output: ``make faults``.
"""

import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import pitfalls.training.trainer  # noqa: F401 - imported before a fork, so that the children need not
from pitfalls import application, experiment, probes, records, sweeps  # noqa: F401

TIMES = int(os.environ.get("FAULT_TIMES", "1"))
TINY = [
    "task=g2_3", "task.test_graphs=64", "model=gpt_nano", "model.width=16", "training.n_steps=12", "training.batch_size=8",
    "training.warmup_steps=2", "training.eval_every_steps=3", "training.eval_graphs=32", "training.checkpoint_every_steps=4",
    "training.log_every_steps=1", "training.n_threads=1", "training.precision=fp32", "training.device=cpu",
    "training.probe_graphs=16",
]  # fmt: skip
N_ROWS = 17
"""Lines of ``metrics.jsonl`` of a whole run: 12 steps and 5 evaluations."""
TIMING = {"wall_s", "samples_per_s", "cpu_s"}
tried: dict[str, list[tuple[int, int]]] = defaultdict(list)
"""By fault: (runs lost, runs with other numbers) of each try."""


@dataclass
class Child:
    """A training process."""

    pid: int
    log: Path

    def wait(self) -> int:
        """Its exit status, or minus the signal that ended it."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return status

    @property
    def text(self) -> str:
        """All that it printed."""
        return self.log.read_text()


def start(arguments: Sequence[str], log: Path, inject: Callable[[], object] = lambda: None) -> Child:
    """``scripts/train.py ARGUMENTS`` in a process of its own, in which ``inject`` is called first."""
    pid = os.fork()
    if pid:
        return Child(pid, log)
    status = 1
    try:
        os.setpgid(0, 0)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        sys.argv = ["scripts/train.py", *arguments]
        inject()
        application.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def rows(runs_dir: Path) -> int:
    """How many lines the metrics of the only run have."""
    files = list(runs_dir.glob("*/metrics.jsonl"))
    return len(files[0].read_bytes().splitlines()) if files else 0


def when(condition: Callable[[], bool], child: Child) -> None:
    """Wait until it holds; an error if the process ended before."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, child.text
        assert os.waitpid(child.pid, os.WNOHANG) == (0, 0), f"it ended before it could be hit: {child.text}"


def numbers(run_dir: Path) -> object:
    """All that must not change: metrics and record without times, and the weights byte by byte."""
    metrics = [{k: v for k, v in row.items() if k not in TIMING} for row in records.read_metrics(run_dir)]
    record = {k: v for k, v in records.read_record(run_dir).items() if k not in TIMING | {"config"}}
    newest = max((run_dir / "checkpoint").glob("step_*"))
    return json.dumps([metrics, record]), {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}


class Judge:
    """Compares runs with the ones that nothing happened to, and keeps the table."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, {}

    def expected(self, overrides: tuple[str, ...]) -> object:
        """The numbers of a run that nothing happened to."""
        if overrides not in self.whole:
            runs_dir = self.folder / str(len(self.whole))
            child = start([*TINY, *overrides, f"runs_dir={runs_dir}"], self.folder / "log")
            assert child.wait() == 0, child.text
            self.whole[overrides] = numbers(next(runs_dir.glob("*-*")))
        return self.whole[overrides]

    def __call__(self, fault: str, runs_dir: Path, jobs: Sequence[tuple[str, ...]] = ((),)) -> None:
        """All jobs have a record in ``runs_dir``, with the numbers of an undisturbed run."""
        finished = {path.name: path for path in runs_dir.glob("*-*") if records.is_finished(path)}
        lost = len(jobs) - len(finished)
        found = [numbers(path) for path in finished.values()]
        changed = sum(self.expected(job) not in found for job in jobs) - lost
        tried[fault].append((lost, changed))
        assert (lost, changed) == (0, 0), fault


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """One for all tests, so that undisturbed runs are trained once."""
    return Judge(tmp_path_factory.mktemp("whole"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, in Markdown."""
    if tried:
        terminalreporter.write_line("\n| fault | times tried | runs lost | numbers changed |\n|---|---|---|---|")
        for fault, results in tried.items():
            lost, changed = (sum(column) for column in zip(*results, strict=True))
            terminalreporter.write_line(f"| {fault} | {len(results)} | {lost} | {changed} |")
