"""Trackers get all numbers by name, and cannot stop a run."""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pitfalls import schemas
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run import train_run
from pitfalls.runs.records import MetricsRow
from pitfalls.runs.run_folder import read_metrics
from pitfalls.schemas import ConfigError
from pitfalls.training import trackers
from pitfalls.training.trainer import Trainer
from tests.tiny_runs import TINY, rows, start


def train(tmp_path: Path, *overrides: str) -> Path:
    composed = compose([*TINY, "training.n_steps=4", "training.eval_every_steps=2", f"runs_dir={tmp_path}", *overrides])
    record = train_run(resolve(composed), make_display=lambda config: [])
    return tmp_path / record.run


class Recorder:
    """A tracker that keeps what it receives."""

    def __init__(self, run_dir: Path, config: dict[str, Any]) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def log(self, row: MetricsRow) -> None:
        self.rows.append((row.step, trackers.scalars(row)))

    def close(self) -> None:
        self.closed = True


def test_a_config_may_name_every_tracker():
    assert set(trackers.TRACKERS) == set(schemas.TRACKERS)


def test_a_tracker_gets_every_number_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", lambda *args: made.append(Recorder(*args)) or made[-1])
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    run_dir = train(tmp_path, "trackers=[tensorboard]")
    (recorder,) = made
    assert recorder.closed
    assert [step for step, _ in recorder.rows] == [0, 1, 2, 2, 3, 4, 4]
    names = {name for _, numbers in recorder.rows for name in numbers}
    assert names >= {"train/loss", "train/lr", "train/grad_norm", "test/exact_match", "test/position_1"}
    rows = read_metrics(run_dir)
    assert [trackers.scalars(row) for row in rows] == [numbers for _, numbers in recorder.rows]


@pytest.mark.parametrize("breaks", ["__init__", "log", "close"])
def test_a_broken_tracker_stops_no_run_and_is_said_once(tmp_path: Path, monkeypatch, caplog, breaks: str):
    """Guards against days of training that end because a server does not answer."""

    class Broken(Recorder):
        pass

    def fail(*args: object) -> None:
        raise ConnectionError("the server is gone")

    setattr(Broken, breaks, fail)
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Broken)
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    with caplog.at_level(logging.WARNING):
        run_dir = train(tmp_path, "trackers=[wandb]")
    assert (run_dir / "record.json").exists()
    said = [message for message in caplog.messages if "wandb" in message]
    assert said == ["tracker wandb is left out from here on: ConnectionError: the server is gone"]


def test_trackers_do_not_change_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Recorder)
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    assert train(tmp_path / "a").name == train(tmp_path / "b", "trackers=[wandb]").name


def test_a_tracker_that_is_not_installed_or_known_is_refused_before_any_compute(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"wandb: it is not installed; pip install -c constraints.txt -e '\.\[wandb\]'"):
        train(tmp_path, "trackers=[wandb]")
    with pytest.raises(ConfigError, match="trackers=mlflow: choose one of tensorboard, wandb"):
        train(tmp_path, "trackers=[mlflow]")
    assert not list(tmp_path.iterdir())


def test_tensorboard_files_hold_the_numbers(tmp_path: Path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_dir = train(tmp_path, "trackers=[tensorboard]")
    read = event_accumulator.EventAccumulator(str(run_dir / "tensorboard"))
    read.Reload()
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [(row["step"], row["loss"]) for row in rows if row["kind"] == "train"]
    assert [(event.step, pytest.approx(event.value)) for event in read.Scalars("train/loss")] == losses


@pytest.mark.slow
def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run_dir = train(tmp_path, "trackers=[wandb]")
    assert list(run_dir.glob("wandb/offline-run-*/run-*.wandb"))


def test_wandb_is_told_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A recorder takes the place of the package, which CI does not install."""
    said: list[tuple[Any, ...]] = []

    class Run:
        starting_step = 0

        def log(self, numbers: dict[str, float], step: int) -> None:
            said.append(("log", step, sorted(numbers)[0]))

        def finish(self) -> None:
            said.append(("finish",))

    module = ModuleType("wandb")
    module.init = lambda **settings: said.append(("init", settings["mode"], settings["id"])) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run_dir = train(tmp_path, "trackers=[wandb]")
    assert said[0] == ("init", "offline", run_dir.name)
    assert said[-1] == ("finish",)
    assert ("log", 4, "test/exact_match") in said


def test_a_resumed_run_keeps_what_an_older_version_wrote(tmp_path: Path):
    """Guards against terms of the loss that are lost on resume, because an older version wrote them under other names."""
    row = {"kind": "train", "step": 2, "samples": 16, "loss": 1.5, "wall_s": 0.5, "samples_per_s": 9.5, "loss_next_token": 1.25}
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {"step": 9}) + "\n")
    trackers.JsonLines(path, resume_step=4).close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [row]


# ------------------------------------------------------------------ a run that goes on


def killed_after(step: int, runs_dir: Path, log: Path, *overrides: str) -> Path:
    """Start a run, kill it as ``kill -9`` does after a step, and return its folder."""

    def inject() -> None:
        take = Trainer._step

        def take_and_die(self: Trainer, started: tuple[float, float]) -> None:
            take(self, started)
            if self.progress.step == step:
                for tracker in self.trackers:  # what a tracker wrote so far is on the disk
                    writer = getattr(getattr(tracker, "_tracker", None), "_writer", None)
                    if writer is not None:
                        writer.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        Trainer._step = take_and_die

    child = start([*TINY, f"runs_dir={runs_dir}", *overrides], log, inject)
    assert child.wait() == -signal.SIGKILL, child.text
    (run_dir,) = runs_dir.glob("next_token-*")
    return run_dir


def points(run_dir: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return the points of ``metrics.jsonl`` by name."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for row in read_metrics(run_dir):
        for name, value in trackers.scalars(row).items():
            found.setdefault(name, []).append((row.step, pytest.approx(value, rel=1e-6)))
    return found


@pytest.mark.parametrize(
    ("kills", "late"),
    [((6,), False), ((2,), False), ((4,), False), ((2, 7, 11), False), ((6,), True)],
    ids=["after a checkpoint", "before the first checkpoint", "before it is written", "three times", "tracker named later"],
)
@pytest.mark.slow
def test_event_files_have_the_points_of_metrics_after_kills(tmp_path: Path, kills: tuple[int, ...], late: bool):
    """Guards against a lost point at the checkpoint, and points that come twice after a kill before the first checkpoint."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    option = "trackers=[tensorboard]"
    for step in kills:
        run_dir = killed_after(step, tmp_path / "runs", tmp_path / "log", *([] if late else [option]))
    child = start([*TINY, f"runs_dir={tmp_path / 'runs'}", option], tmp_path / "log")
    assert child.wait() == 0, child.text
    assert rows(tmp_path / "runs") == 17
    files = list((run_dir / "tensorboard").iterdir())
    assert len(files) == 1, "readers of all files would find a point twice"
    for place in (run_dir / "tensorboard", files[0]):
        read = event_accumulator.EventAccumulator(str(place), {"scalars": 0})
        read.Reload()
        written = {name: [(event.step, event.value) for event in read.Scalars(name)] for name in read.Tags()["scalars"]}
        assert written == points(run_dir)


def fake_wandb(monkeypatch: pytest.MonkeyPatch, starting_step: int = 0) -> dict[Path, list[tuple[int, str]]]:
    """Put a module in the place of wandb. It makes the folders that wandb makes, and returns (step, name) by folder."""
    written: dict[Path, list[tuple[int, str]]] = {}

    class Run:
        def __init__(self, settings: dict[str, Any]) -> None:
            kind = "offline-run" if settings["mode"] == "offline" else "run"
            self.folder = Path(settings["dir"]) / "wandb" / f"{kind}-20261130_12000{len(written)}-{settings['id']}"
            self.folder.mkdir(parents=True)
            self.starting_step, written[self.folder] = starting_step, []

        def log(self, numbers: dict[str, float], step: int) -> None:
            written[self.folder] += [(step, name) for name in numbers]

        def finish(self) -> None:
            pass

    module = ModuleType("wandb")
    module.init = lambda **settings: Run(settings)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    return written


def test_wandb_has_one_offline_folder_with_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against a second offline run of the same id that holds the later steps only."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    written = fake_wandb(monkeypatch)
    run_dir = killed_after(6, tmp_path / "runs", tmp_path / "log", "trackers=[wandb]")
    (first,) = (run_dir / "wandb").iterdir()
    (run_dir / "wandb" / "offline-run-20261130_110000-another").mkdir()
    train_run(resolve(compose([*TINY, f"runs_dir={tmp_path / 'runs'}", "trackers=[wandb]"])), make_display=lambda config: [])
    (whole,) = written
    assert not first.exists() or first == whole
    assert written[whole] == [(row.step, name) for row in read_metrics(run_dir) for name in trackers.scalars(row)]
    assert (run_dir / "wandb" / "offline-run-20261130_110000-another").exists(), "what is not of this run is left alone"


def test_wandb_online_gets_only_the_steps_that_the_server_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against a warning per replayed step, which a server ignores."""
    monkeypatch.setenv("WANDB_MODE", "online")
    written = fake_wandb(monkeypatch, starting_step=3)
    train(tmp_path, "trackers=[wandb]")
    (steps,) = ({step for step, _ in points} for points in written.values())
    assert steps == {3, 4}
