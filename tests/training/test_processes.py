"""One run on several processes has the numbers of one process."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pitfalls.experiment.config import resolve, run_dir_of
from pitfalls.experiment.hydra_app import compose
from pitfalls.runs.lock import RunLock
from pitfalls.schemas import ConfigError
from pitfalls.training.processes import ALONE, Processes, from_environment
from tests.tiny_runs import TINY, numbers

ROOT = Path(__file__).resolve().parents[2]
SHARED = [*TINY, "training.accumulation=2", "training.n_steps=40", "training.max_grad_norm=1.0", "task.targets_per_graph=2"]


def test_micro_batches_are_shared_evenly():
    parts = [Processes(rank, 3).share(6) for rank in range(3)]
    assert [i for part in parts for i in part] == list(range(6))
    assert list(ALONE.share(4)) == [0, 1, 2, 3]
    Processes(0, 3).check_share(6)
    with pytest.raises(ConfigError, match="training.accumulation=4: 3 processes .* multiple of 3"):
        Processes(0, 3).check_share(4)


def test_alone_nothing_is_sent():
    """Guards against a run without torchrun that waits for others."""
    assert ALONE.sum([1.5, 2.0]) == ALONE.of_first([1.5, 2.0]) == [1.5, 2.0]
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.is_first


class AllReduce:
    """A replacement of `torch.distributed.all_reduce`, for processes that are threads here."""

    def __init__(self, n: int) -> None:
        self.barrier, self.sent = threading.Barrier(n, timeout=20), []

    def __call__(self, tensor: torch.Tensor) -> None:
        self.sent.append(tensor.clone())
        self.barrier.wait()
        total = torch.stack(self.sent).sum(0)
        self.barrier.wait()
        tensor.copy_(total)
        self.sent.clear()
        self.barrier.wait()


def test_a_gradient_that_one_process_has_is_added_to_its_own_parameter(monkeypatch: pytest.MonkeyPatch):
    """Guards against silent sums over different parameters, and a process without gradients that the others wait for.

    Three parameters of one shape: the first has a gradient on both processes, the second on the second one, the third on none.
    """
    monkeypatch.setattr(torch.distributed, "all_reduce", AllReduce(2))

    def sums(rank: int, gradients: Sequence[float | None]) -> list[list[float] | None]:
        parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in gradients]
        for parameter, value in zip(parameters, gradients, strict=True):
            parameter.grad = None if value is None else torch.full((2,), value)
        Processes(rank, 2).sum_gradients(parameters)
        return [None if p.grad is None else p.grad.tolist() for p in parameters]

    with ThreadPoolExecutor(2) as pool:
        for first, second, expected in (
            ((1.0, None, None), (2.0, 4.0, None), [[3.0, 3.0], [4.0, 4.0], None]),
            ((None, 4.0, None), (2.0, None, None), [[2.0, 2.0], [4.0, 4.0], None]),
            ((None, None, None), (2.0, 4.0, None), [[2.0, 2.0], [4.0, 4.0], None]),
        ):
            assert list(pool.map(sums, (0, 1), (first, second))) == [expected, expected]


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert from_environment() == Processes(1, 2)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert from_environment() == ALONE


def train(runs_dir: Path, n_processes: int, *overrides: str) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)] if n_processes > 1 else []
    command = [sys.executable, *launcher, str(ROOT / "scripts" / "train.py"), *overrides, *SHARED, f"runs_dir={runs_dir}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.slow
def test_two_processes_have_the_numbers_of_one(tmp_path: Path):
    """The numbers are equal bit for bit, with one record and one writer per file. A run may continue with other processes."""
    for n in (1, 2):
        done = train(tmp_path / str(n), n)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("test exact_match") == 1, "the first process alone tells"
    (one,), (two,) = (list((tmp_path / str(n)).glob("*-*")) for n in (1, 2))
    assert one.name == two.name, "the number of processes is no part of a run's identity"
    expected, found = numbers(one), numbers(two)
    assert found[1] == expected[1]
    assert found[0].replace('"processes": 2', '"processes": 1') == expected[0]
    for path in (two / "checkpoint").glob("step_00000040"):
        for file in path.iterdir():
            file.write_bytes(b"")
    (two / "record.json").unlink()
    done = train(tmp_path / "2", 1)
    assert "step_00000040 is damaged" in done.stderr
    assert numbers(two) == expected


@pytest.mark.slow
def test_processes_that_find_the_run_taken_all_stop(tmp_path: Path):
    """Guards against a second process that waits for ever, or that reports a failure because the first one has left."""
    run_dir = run_dir_of(resolve(compose([*SHARED, f"runs_dir={tmp_path}"])))
    run_dir.mkdir()
    with RunLock(run_dir, 40):
        done = train(tmp_path, 2)
    assert done.returncode != 0
    assert "is training this run" in done.stderr
    assert "experiment/run.py" not in done.stderr, "one line each, no traceback of ours"
    assert {path.name for path in run_dir.iterdir()} <= {"running.lock", "resolved_config.json"}


@pytest.mark.slow
def test_a_sweep_under_torchrun_is_refused(tmp_path: Path):
    done = train(tmp_path, 2, "-m")
    assert done.returncode != 0
    assert "a sweep under torchrun would start every job on every process" in done.stderr
    assert not list(tmp_path.glob("*-*"))
