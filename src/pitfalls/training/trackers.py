"""Trackers of a run's numbers: JSON lines, which reports read, and on request TensorBoard and Weights & Biases."""

import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from pitfalls.runs.files import write_bytes
from pitfalls.runs.records import MetricsRow, TrainRow
from pitfalls.runs.run_folder import metrics_lines, read_metrics
from pitfalls.schemas import ConfigError

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """A listener that receives one row per logged step or evaluation."""

    def log(self, row: MetricsRow) -> None:
        """Receive one row."""

    def close(self) -> None:
        """Finish. No more rows will come."""


class JsonLines:
    """The tracker that appends rows to ``metrics.jsonl``. Each is written at once.

    Args:
        path: the file.
        resume_step: the step from which the run goes on. Rows of later steps are removed, because the run writes them again.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        written = zip(metrics_lines(path.parent), read_metrics(path.parent), strict=True) if resume_step else ()
        write_bytes(path, b"".join(line for line, row in written if row.step <= resume_step))  # no row is lost
        self._file = path.open("a", buffering=1)

    def log(self, row: MetricsRow) -> None:
        self._file.write(_line(row))

    def close(self) -> None:
        self._file.close()


def _line(row: MetricsRow) -> str:
    return f"{json.dumps(msgspec.to_builtins(row), allow_nan=False)}\n"


class Guarded:
    """A tracker that may fail. Its first error is logged, and the run goes on without it.

    Args:
        name: the tracker's name, for the message.
        make: makes the tracker. This may fail as well.
    """

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self.name = name
        self._tracker: Tracker | None = None
        self._try(lambda: setattr(self, "_tracker", make()))

    def log(self, row: MetricsRow) -> None:
        """Pass a row on to the tracker."""
        tracker = self._tracker
        if tracker is not None:
            self._try(lambda: tracker.log(row))

    def close(self) -> None:
        """Close the tracker, if it still works."""
        tracker = self._tracker
        if tracker is not None:
            self._try(tracker.close)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # code of others that uses a disk or a network may raise anything
            log.warning("tracker %s is left out from here on: %s: %s", self.name, type(error).__name__, error)
            self._tracker = None


def scalars(row: MetricsRow) -> dict[str, float]:
    """Return the numbers of a row by name.

    Names are for example ``train/loss``, ``train/loss_next_token``, ``test/exact_match`` and ``test/position_1``. The last one
    is the accuracy of a target position given the gold tokens before it.
    """
    if isinstance(row, TrainRow):
        named = {name: getattr(row, name) for name in ("loss", "grad_norm", "lr", "wall_s", "samples_per_s")}
        named |= {f"loss_{name}": value for name, value in row.parts.items()}
        return {f"train/{name}": float(value) for name, value in named.items()}
    counts = {"exact_match": row.evaluation.exact_match, "first_hop": row.evaluation.first_hop}
    counts |= {f"position_{i}": count for i, count in enumerate(row.evaluation.forced_position_accuracy)}
    return {f"{row.split}/{name}": count.share for name, count in counts.items() if count.share is not None}


class TensorBoard:
    """The tracker that writes event files to ``tensorboard/`` in the run's folder. ``tensorboard --logdir runs`` shows them.

    The event files of earlier starts are removed.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run_dir / "tensorboard"
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder), purge_step=0)  # a TensorBoard that is open forgets the old points

    def log(self, row: MetricsRow) -> None:
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row.step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """The tracker for Weights & Biases. It is offline unless WANDB_MODE is set. ``wandb sync`` sends a run later.

    Offline, the folders of earlier starts are removed, so that one folder has the whole run. A server that has steps of the
    run already keeps them.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any]) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            for old in (run_dir / "wandb").glob(f"offline-run-*-{run_dir.name}"):
                shutil.rmtree(old)
        self._run = wandb.init(
            project="pitfalls",
            id=run_dir.name,
            name=run_dir.name,
            dir=str(run_dir),
            config=config,
            mode=mode,
            resume="allow" if mode == "online" else None,
        )

    def log(self, row: MetricsRow) -> None:
        if row.step >= self._run.starting_step:  # a server that has steps of this run takes only later ones
            self._run.log(scalars(row), step=row.step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}
"""The optional trackers by name: (run folder, config) -> tracker. Each begins anew, without what earlier starts wrote."""


def check_trackers(names: list[str]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        ConfigError: one is not installed. The message has the command that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"trackers={name}: it is not installed; pip install -c constraints.txt -e '.[{name}]'")


def optional_trackers(names: list[str], run_dir: Path, config: dict[str, Any]) -> list[Tracker]:
    """Return the trackers that a config names. Their errors stop no run.

    Each first receives the rows of ``metrics.jsonl``. So a run that goes on, or that names a tracker only later, has the same
    points in all places.
    """

    def make(name: str) -> Tracker:
        tracker = TRACKERS[name](run_dir, config)
        for row in read_metrics(run_dir):
            tracker.log(row)
        return tracker

    return [Guarded(name, partial(make, name)) for name in names]
