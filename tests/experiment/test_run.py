"""A run from config to record: finished runs are kept, and stopped ones continue. For killed ones see tests/faults."""

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pitfalls.experiment import run
from pitfalls.experiment.build import load_run, make_run_splits
from pitfalls.experiment.config import run_dir_of
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run import train_run
from pitfalls.probes import REGISTRY
from pitfalls.runs import run_folder
from pitfalls.runs.files import read_json, write_json
from pitfalls.runs.lock import RunTakenError
from pitfalls.runs.records import Failure, TrainRow
from pitfalls.runs.sweeps import state_of
from pitfalls.schemas import ConfigError
from pitfalls.training import device, processes
from pitfalls.training.interrupt import Interrupted
from pitfalls.training.trainer import DivergedError
from tests.tiny_runs import TINY, without_times


def no_display(config):
    return []


def tensors(run_dir: Path) -> dict[str, bytes]:
    """The final checkpoint's files, byte by byte (state.json holds seconds)."""
    folder = max((run_dir / "checkpoint").glob("step_*"))
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_run_leaves_config_metrics_checkpoint_and_record(tmp_path, accumulation):
    """With micro-batches, a step still takes one batch of samples."""
    config = compose([*TINY, f"training.accumulation={accumulation}", f"runs_dir={tmp_path}"])
    record = train_run(config, make_display=no_display)
    run_dir = tmp_path / record.run
    left = {"resolved_config.json", "metrics.jsonl", "checkpoint", "record.json", "running.lock"}
    assert {path.name for path in run_dir.iterdir()} == left
    assert run_folder.read_record(run_dir) == record
    assert record.samples_seen == 96
    assert record.test.exact_match.n == 64
    assert record.config.training["precision"] == "fp32"
    assert set(record.probes.__struct_fields__) == set(REGISTRY)
    assert record.probes.first_hop.right.n == 16
    assert [len(example.answer) for example in record.examples] == [record.config.task.path_length] * 8
    assert [row["step"] for row in without_times(run_dir) if row["kind"] == "train"] == list(range(1, 13))
    assert [row["step"] for row in without_times(run_dir) if row["kind"] == "eval"] == [0, 3, 6, 9, 12]


def test_finished_run_is_not_trained_again(tmp_path):
    config = compose([*TINY, f"runs_dir={tmp_path}"])
    first = train_run(config, make_display=no_display)
    before = (tmp_path / first.run / "record.json").stat().st_mtime_ns
    assert train_run(config, make_display=no_display) == first
    assert (tmp_path / first.run / "record.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("n", [40, 80])
def test_fixed_regime_scores_all_training_graphs_too(tmp_path, n):
    """Guards against a training set that is scored only as far as there are test graphs, 64."""
    record = train_run(compose([*TINY, f"task.train_graphs={n}", f"runs_dir={tmp_path}"]), make_display=no_display)
    assert record.evaluation["train"].exact_match.n == n


@pytest.mark.parametrize(("in_hardware", "n_said"), [(False, 1), (True, 0)])
def test_bf16_that_the_device_emulates_is_said(tmp_path, monkeypatch, caplog, in_hardware, n_said):
    """Guards against a silent run in emulated bf16, which takes many times as long as in fp32."""
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: in_hardware)
    train_run(compose([*TINY, f"runs_dir={tmp_path}", "training.precision=bf16"]), make_display=no_display)
    said = [message for message in caplog.messages if "training.precision=bf16 is emulated here" in message]
    assert len(said) == n_said


def test_failed_run_says_why_and_keeps_no_record(tmp_path):
    config = compose([*TINY, "training.lr=1e20", "training.warmup_steps=0", f"runs_dir={tmp_path}"])
    with pytest.raises(DivergedError, match="lower training.lr"):
        train_run(config, make_display=no_display)
    run_dir = next(tmp_path.iterdir())
    assert "DivergedError: step" in json.loads((run_dir / "failure.json").read_text())["error"]
    assert not run_folder.is_finished(run_dir)


def test_an_old_failure_is_gone_when_training_starts_anew(tmp_path):
    """Guards against a run that was stopped and that `status` calls failed, with the reason of the try before."""
    config = compose([*TINY, f"runs_dir={tmp_path}"])
    run_dir = run_dir_of(config)
    run_dir.mkdir()
    write_json(run_dir / run_folder.FAILURE, Failure("an old reason", [], ""))
    with pytest.raises(Interrupted):
        train_run(config, make_display=lambda config: [StopAt(2)])
    assert state_of(run_dir).name == "stopped"


def test_of_several_processes_the_first_error_is_kept(tmp_path, monkeypatch):
    """Guards against the loss of the cause, which "connection closed" would replace: other processes fail later."""
    run_dir = tmp_path / "run"
    rank_0, rank_1 = (SimpleNamespace(is_first=rank == 0, any=lambda value: value) for rank in (0, 1))

    def the_others_notice():
        """Do what the first process does when the second one is gone."""
        with pytest.raises(RuntimeError), run._failure_kept(run_dir, rank_0_running, []):
            raise RuntimeError("connection closed")

    rank_0_running = SimpleNamespace(is_first=False, any=lambda value: value)  # past its start
    with pytest.raises(MemoryError), run._failure_kept(run_dir, rank_1, ["seed=1"]):
        raise MemoryError("the cause")
    the_others_notice()
    kept = read_json(run_dir / run_folder.FAILURE, Failure)
    assert (kept.error, kept.overrides) == ("MemoryError: the cause", ["seed=1"])
    with run._failure_kept(run_dir, rank_0, []):
        assert not (run_dir / run_folder.FAILURE).exists(), "the next try starts anew"


def test_a_failure_is_kept_before_the_process_leaves_its_group(tmp_path, monkeypatch):
    """Guards against the wrong order: once the process has left the group, another one may write its own error."""
    config = compose([*TINY, f"runs_dir={tmp_path}"])
    found = []

    @contextmanager
    def joined(device):
        try:
            yield processes.ALONE
        finally:
            found.append((run_dir_of(config) / run_folder.FAILURE).exists())

    monkeypatch.setattr(processes, "joined", joined)
    monkeypatch.setattr(run, "build", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_run(config, make_display=no_display)
    assert found == [True]


class StopAt:
    """A display that asks the run to stop after a step."""

    def __init__(self, step):
        self.step = step

    def log(self, row):
        if isinstance(row, TrainRow) and row.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def close(self):
        pass


def test_stopped_run_continues_to_the_same_numbers(tmp_path):
    config = compose([*TINY, "task.train_graphs=40", f"runs_dir={tmp_path / 'whole'}"])
    whole = tmp_path / "whole" / train_run(config, make_display=no_display).run

    stopped = replace(config, runs_dir=str(tmp_path / "stopped"))
    with pytest.raises(Interrupted, match="SIGTERM after step 6"):
        train_run(stopped, make_display=lambda config: [StopAt(6)])
    run_dir = tmp_path / "stopped" / train_run(stopped, make_display=no_display).run
    assert without_times(run_dir) == without_times(whole)
    assert tensors(run_dir) == tensors(whole)


def test_load_run_gives_the_trained_weights(tmp_path):
    from pitfalls.evaluation.score import evaluate

    record = train_run(compose([*TINY, f"runs_dir={tmp_path}"]), make_display=no_display)
    trained = load_run(tmp_path / record.run)
    test = make_run_splits(trained).test
    assert evaluate(trained.trunk, trained.objective, trained.task, test) == record.test


class _Second:
    """The second of two processes."""

    rank, is_first = 1, False

    def __init__(self, step_of_first: int = 0) -> None:
        self.step_of_first = step_of_first

    def of_first(self, values):
        return [self.step_of_first]

    def any(self, value):
        return True


def test_processes_with_different_checkpoints_stop():
    """Guards against a gradient that is summed over two models."""
    trainer = SimpleNamespace(resume=lambda: 4, processes=_Second(8), checkpoint_dir="DIR")
    line = "process 1 finds a checkpoint of step 4, the first one of step 8: let all processes read the same folder DIR"
    with pytest.raises(ConfigError, match=line):
        run._resume(trainer)


def test_the_other_processes_stop_if_the_first_one_cannot_start(tmp_path):
    """Guards against processes that wait for two hours for a run that another command trains."""
    with (
        pytest.raises(RunTakenError, match="the first process could not start this run; its own message says why"),
        run._claimed(tmp_path, 3, _Second()),
    ):
        pytest.fail("it trains")
