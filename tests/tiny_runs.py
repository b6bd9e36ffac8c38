"""The smallest runs, in processes of their own. They are forked from the tests' process, so they need not import torch again."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

import pitfalls.training.trainer  # noqa: F401 - imported before a fork, so that the children need not
from pitfalls import probes  # noqa: F401
from pitfalls.experiment import hydra_app, run  # noqa: F401
from pitfalls.runs import run_folder, sweeps  # noqa: F401
from pitfalls.runs.counts import Count, Evaluation
from pitfalls.runs.probe_records import Probes
from pitfalls.runs.records import ConfigRecord, Hardware, Record, TrainRow
from pitfalls.schemas import Config

TINY = [
    "task=g2_3",
    "task.test_graphs=64",
    "model=gpt_nano",
    "model.width=16",
    "training.n_steps=12",
    "training.batch_size=8",
    "training.warmup_steps=2",
    "training.eval_every_steps=3",
    "training.eval_graphs=32",
    "training.checkpoint_every_steps=4",
    "training.log_every_steps=1",
    "training.n_threads=1",
    "training.precision=fp32",
    "training.device=cpu",
    "training.probe_graphs=16",
]
N_ROWS = 17
"""Number of rows in ``metrics.jsonl`` of a whole run: 12 steps and 5 evaluations."""
TIMING = {"wall_s", "samples_per_s", "cpu_s"}
ROWS = [TrainRow(step=n, samples=8 * n, loss=1.5, wall_s=0.5, samples_per_s=9.5) for n in (1, 2)]
LINES = "".join(f"{json.dumps(msgspec.to_builtins(row))}\n" for row in ROWS)
"""``ROWS`` as lines of ``metrics.jsonl``."""


def plain(data: Any) -> Any:
    """Return structs as the dicts and lists of their JSON file."""
    return json.loads(json.dumps(msgspec.to_builtins(data), allow_nan=False))


@dataclass
class Child:
    """A training process."""

    pid: int
    log: Path

    def wait(self) -> int:
        """Wait for its end, and return the exit status, or minus the number of the signal that ended it."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return status

    @property
    def text(self) -> str:
        """Return the output of the process."""
        return self.log.read_text()


def start(arguments: Sequence[str], log: Path, inject: Callable[[], object] = lambda: None) -> Child:
    """Start ``scripts/train.py ARGUMENTS`` in a process of its own, which calls ``inject`` first."""
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
        hydra_app.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def rows(runs_dir: Path) -> int:
    """Return the number of lines that the metrics of the only run have."""
    files = list(runs_dir.glob("*/metrics.jsonl"))
    return len(files[0].read_bytes().splitlines()) if files else 0


def when(condition: Callable[[], bool], child: Child) -> None:
    """Wait until a condition holds. It is an error if the process ends before."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, child.text
        assert os.waitpid(child.pid, os.WNOHANG) == (0, 0), f"it ended before it could be hit: {child.text}"


def without_times(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of ``metrics.jsonl`` without times."""
    rows = map(msgspec.to_builtins, run_folder.read_metrics(run_dir))
    return [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


def numbers(run_dir: Path) -> object:
    """Return everything that must not change: metrics and record without times and commit, and the weights byte by byte."""
    metrics = without_times(run_dir)
    left_out = TIMING | {"config", "commit", "dirty"}
    record = {k: v for k, v in msgspec.to_builtins(run_folder.read_record(run_dir)).items() if k not in left_out}
    newest = max((run_dir / "checkpoint").glob("step_*"))
    return json.dumps([metrics, record]), {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}


def a_record(config: Config) -> Record:
    """Return a whole record with made-up numbers."""
    count = Count(1, 4)
    by_position = [count] * config.task.path_length
    evaluation = Evaluation(count, count, by_position, by_position, count, count, count, "autoregressive", count)
    return Record(
        run="a-run",
        finished="2026-11-22",
        seed=0,
        steps=3,
        samples_seen=24,
        stopped_early=False,
        n_parameters=10,
        wall_s=1.25,
        cpu_s=1.0,
        supervised_positions=[0, 1],
        evaluation={"test": evaluation},
        config=msgspec.convert(asdict(config), ConfigRecord),
        probes=Probes(),
        examples=[],
        commit=None,
        dirty=None,
        versions={"python": "3.11"},
        hardware=Hardware("x", 2, "Linux"),
    )
