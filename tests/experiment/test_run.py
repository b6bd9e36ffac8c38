"""A run from config to record: finished runs are kept, stopped ones continue (killed ones: tests/faults)."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from pitfalls.experiment.build import load_run, make_run_splits
from pitfalls.experiment.config import CONF
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run import train_run
from pitfalls.probes import REGISTRY
from pitfalls.runs import run_folder
from pitfalls.runs.records import TrainRow
from pitfalls.training import device
from pitfalls.training.interrupt import Interrupted
from tests.tiny_runs import TINY, without_times

ROOT = CONF.parent


def no_display(config):
    return []


def tensors(run_dir: Path) -> dict[str, bytes]:
    """The final checkpoint's files, byte by byte (state.json holds seconds)."""
    folder = max((run_dir / "checkpoint").glob("step_*"))
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_run_leaves_config_metrics_checkpoint_and_record(tmp_path):
    config = compose([*TINY, f"runs_dir={tmp_path}"])
    record = train_run(config, trackers=no_display)
    run_dir = tmp_path / record.run
    left = {"config.yaml", "metrics.jsonl", "checkpoint", "record.json", "running.lock"}
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
    first = train_run(config, trackers=no_display)
    before = (tmp_path / first.run / "record.json").stat().st_mtime_ns
    assert train_run(config, trackers=no_display) == first
    assert (tmp_path / first.run / "record.json").stat().st_mtime_ns == before


def test_fixed_regime_scores_training_graphs_too(tmp_path):
    record = train_run(compose([*TINY, "task.train_graphs=40", f"runs_dir={tmp_path}"]), trackers=no_display)
    assert record.evaluation["train"].exact_match.n == 40


@pytest.mark.parametrize(("in_hardware", "n_said"), [(False, 1), (True, 0)])
def test_bf16_that_the_device_emulates_is_said(tmp_path, monkeypatch, caplog, in_hardware, n_said):
    """A run trained in it takes many times as long as in fp32, and nothing else would tell its user why."""
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: in_hardware)
    train_run(compose([*TINY, f"runs_dir={tmp_path}", "training.precision=bf16"]), trackers=no_display)
    said = [message for message in caplog.messages if "training.precision=bf16 is emulated here" in message]
    assert len(said) == n_said


def test_failed_run_says_why_and_keeps_no_record(tmp_path):
    config = compose([*TINY, "training.lr=1e20", "training.warmup_steps=0", f"runs_dir={tmp_path}"])
    with pytest.raises(FloatingPointError, match="lower training.lr"):
        train_run(config, trackers=no_display)
    run_dir = next(tmp_path.iterdir())
    assert "FloatingPointError: step" in json.loads((run_dir / "failure.json").read_text())["error"]
    assert not run_folder.is_finished(run_dir)


def test_stopped_run_continues_to_the_same_numbers(tmp_path):
    config = compose([*TINY, "task.train_graphs=40", f"runs_dir={tmp_path / 'whole'}"])
    whole = tmp_path / "whole" / train_run(config, trackers=no_display).run

    class StopAt:
        def log(self, row):
            if isinstance(row, TrainRow) and row.step == 6:
                os.kill(os.getpid(), signal.SIGTERM)

        def close(self):
            pass

    stopped = replace(config, runs_dir=str(tmp_path / "stopped"))
    with pytest.raises(Interrupted, match="SIGTERM after step 6"):
        train_run(stopped, trackers=lambda config: [StopAt()])
    run_dir = tmp_path / "stopped" / train_run(stopped, trackers=no_display).run
    assert without_times(run_dir) == without_times(whole)
    assert tensors(run_dir) == tensors(whole)


def test_load_run_gives_the_trained_weights(tmp_path):
    from pitfalls.evaluation.score import evaluate

    record = train_run(compose([*TINY, f"runs_dir={tmp_path}"]), trackers=no_display)
    cell = load_run(tmp_path / record.run)
    test = make_run_splits(cell).test
    assert evaluate(cell.trunk, cell.objective, cell.task, test) == record.test
