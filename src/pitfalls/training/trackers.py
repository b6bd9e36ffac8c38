"""Where a run's numbers go while it trains. JSON lines always, they are what reports read; TensorBoard and W&B if asked for."""

import importlib.util
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from pitfalls.runs.files import write_bytes
from pitfalls.runs.records import MetricsRow, TrainRow
from pitfalls.runs.run_folder import read_metrics
from pitfalls.schemas import ConfigError

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Receives one row per logged step or evaluation."""

    def log(self, row: MetricsRow) -> None:
        """Take one row."""

    def close(self) -> None:
        """No more rows will come."""


class JsonLines:
    """Appends rows to ``metrics.jsonl``, each written out at once.

    Args:
        path: the file.
        resume_step: rows of later steps are dropped first: the resumed run will write them again.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        kept = [row for row in read_metrics(path.parent) if row.step <= resume_step] if resume_step else []
        write_bytes(path, "".join(map(_line, kept)).encode())
        self._file = path.open("a", buffering=1)

    def log(self, row: MetricsRow) -> None:
        """Append one row."""
        self._file.write(_line(row))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: MetricsRow) -> str:
    return f"{json.dumps(msgspec.to_builtins(row), allow_nan=False)}\n"


class Guarded:
    """A tracker that may break: its first error is said once, and the run goes on without it."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self.name = name
        self._tracker: Tracker | None = None
        self._try(lambda: setattr(self, "_tracker", make()))

    def log(self, row: MetricsRow) -> None:
        """Hand a row on."""
        tracker = self._tracker
        if tracker is not None:
            self._try(lambda: tracker.log(row))

    def close(self) -> None:
        """Close it, if it still works."""
        tracker = self._tracker
        if tracker is not None:
            self._try(tracker.close)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a third party's code on someone's disk or network: whatever it is, the run goes on
            log.warning("tracker %s is left out from here on: %s: %s", self.name, type(error).__name__, error)
            self._tracker = None


def scalars(row: MetricsRow) -> dict[str, float]:
    """Return a row as named numbers.

    Names are like ``train/loss``, ``train/loss_next_token``, ``test/exact_match`` and ``test/position_1`` (accuracy given
    the gold tokens before it).
    """
    if isinstance(row, TrainRow):
        named = {name: getattr(row, name) for name in ("loss", "grad_norm", "lr", "wall_s", "samples_per_s")}
        named |= {f"loss_{name}": value for name, value in row.parts.items()}
        return {f"train/{name}": float(value) for name, value in named.items()}
    counts = {"exact_match": row.evaluation.exact_match, "first_hop": row.evaluation.first_hop}
    counts |= {f"position_{i}": count for i, count in enumerate(row.evaluation.forced_position_accuracy)}
    return {f"{row.split}/{name}": count.k / count.n for name, count in counts.items() if count.n}


class TensorBoard:
    """Event files in ``tensorboard/`` of the run's folder; ``tensorboard --logdir runs`` shows all runs."""

    def __init__(self, run_dir: Path, config: dict[str, Any], resume_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=resume_step or None)

    def log(self, row: MetricsRow) -> None:
        """Write the scalars of a row."""
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row.step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, offline unless WANDB_MODE says otherwise; ``wandb sync`` sends it later."""

    def __init__(self, run_dir: Path, config: dict[str, Any], resume_step: int) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
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
        """Send the scalars of a row."""
        self._run.log(scalars(row), step=row.step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, dict[str, Any], int], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}


def check_trackers(names: list[str]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        ConfigError: with the line that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"trackers={name}: it is not installed; pip install -c constraints.txt -e '.[{name}]'")


def optional_trackers(names: list[str], run_dir: Path, config: dict[str, Any], resume_step: int) -> list[Tracker]:
    """The trackers that a config asks for, each guarded."""

    def guarded(name: str) -> Guarded:
        return Guarded(name, lambda: TRACKERS[name](run_dir, config, resume_step))

    return [guarded(name) for name in names]
