"""The folder of a run: the names of its files, its own name, and functions that read the files.

    resolved_config.json   the resolved config, written before step 0
    metrics.jsonl          one line per logged step or evaluation
    checkpoint/            see `pitfalls.training.checkpoint`
    record.json            written once, at the end, atomically: a run with a record is finished
    failure.json           instead of a record: the last error of a run that did not finish
    running.*              the process that trains it now (`pitfalls.runs.lock`)

Each file has one writer, and all are text or safetensors. This module imports neither torch nor hydra, so that reports
start fast. A folder may come from a stranger (SECURITY.md).
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pitfalls.runs.files import FileError, decode, read_bytes, read_json
from pitfalls.runs.lock import HOLDER, LOCK
from pitfalls.runs.records import MetricsRow, Record, Summary
from pitfalls.schemas import DIGEST

RECORD, CONFIG, METRICS, FAILURE = "record.json", "resolved_config.json", "metrics.jsonl", "failure.json"
CHECKPOINT = "checkpoint"

R = TypeVar("R", Record, Summary)
METRICS_ROW: Any = MetricsRow
"""The type of a line of ``metrics.jsonl``, for `pitfalls.runs.files.decode`."""

NOT_IDENTITY = ("runs_dir", "trackers", "training.log_every_steps", "training.checkpoint_every_steps", "training.probe_graphs")
"""Config keys that cannot change the trained model."""

NEW_KEYS: dict[str, Any] = {"optimizer.name": "adamw"}
"""Config keys that the first configs lack, with the value that stands for what was done then. It is not part of an identity."""

MAX_METRICS_BYTES = 2**28
"""The largest ``metrics.jsonl`` that is read. The longest runs write a few megabytes."""


def run_id(config: dict[str, Any]) -> str:
    """Return twelve hex digits. Two configs have the same ones if and only if they must give the same numbers.

    Args:
        config: the resolved config as dicts and lists, with precision and device decided.
    """
    kept = {
        key: value
        for key, value in sorted(flatten(config))
        if key not in NOT_IDENTITY and (key not in NEW_KEYS or value != NEW_KEYS[key])
    }
    if str(kept.get("model.revision")).startswith(DIGEST):
        del kept["model.source"]  # the digest says which files they are, wherever they lie
    start = kept.pop("model.init_from", None)
    if start is not None:
        kept["model.init_from"] = Path(start).name  # the folder does not matter: the name says which run it is
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:12]


def flatten(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return nested data as a list of pairs (dotted key, value)."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def run_name(config: dict[str, Any]) -> str:
    """Return the name of a run's folder: readable, and unique by its `run_id`."""
    task = config["task"]
    graph = f"g{task['degree']}_{task['path_length']}-n{task['n_values']}"
    regime = "online" if task["train_graphs"] is None else f"fixed{task['train_graphs']}"
    return "-".join((config["objective"]["name"], config["model"]["name"], graph, regime, f"s{config['seed']}", run_id(config)))


def check_kinds(run_dir: Path) -> None:
    """Refuse to train in a folder that is a link or holds one, or that has a folder or a pipe in place of a file.

    What a run writes would land outside of its folder, or could not be written after hours of training.

    Raises:
        FileError: names the link, or the file that is none.
    """
    for path in (run_dir / name for name in (RECORD, CONFIG, METRICS, FAILURE, LOCK, HOLDER)):
        if os.path.lexists(path) and not path.is_file() and not path.is_symlink():
            raise FileError(f"{path}: no plain file, and the run writes one there; delete it")
    if os.path.lexists(run_dir / CHECKPOINT) and not (run_dir / CHECKPOINT).is_dir():
        raise FileError(f"{run_dir / CHECKPOINT}: no folder, and the run writes its checkpoints there; delete it")
    folders = [run_dir, run_dir / CHECKPOINT]
    inside = [path for folder in folders if folder.is_dir() and not folder.is_symlink() for path in folder.iterdir()]
    for path in [run_dir, *inside]:
        if path.is_symlink():
            raise FileError(f"{path}: a link, and a run writes to its own folder alone; copy the file itself there")


def is_finished(run_dir: Path) -> bool:
    """Whether a run needs no more training."""
    return (run_dir / RECORD).is_file()


def read_record(run_dir: Path) -> Record:
    """Return the record of a finished run.

    Raises:
        FileNotFoundError: there is none. The message says what to do.
        FileError: the file is not the record of a run.
    """
    return _read_record(run_dir, Record)


def read_summary(run_dir: Path) -> Summary:
    """Return the record of a finished run without probes and examples. The errors are those of `read_record`."""
    return _read_record(run_dir, Summary)


def _read_record(run_dir: Path, of_type: type[R]) -> R:
    path = run_dir / RECORD
    try:
        return read_json(path, of_type)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no record, so this run has not finished; train it to the end first") from None
    except FileError as error:
        raise FileError(
            f"{error}; not the record of a run, or of an older version: delete the file and start the run again (from its "
            "checkpoint it is scored and probed, not trained again)"
        ) from None


def read_metrics(run_dir: Path) -> list[MetricsRow]:
    """Return the rows of ``metrics.jsonl``. A last line cut off by a crash is left out.

    Raises:
        FileError: another line is broken. The message names it.
    """
    lines = metrics_lines(run_dir)
    try:
        return [decode(line, METRICS_ROW, f"{run_dir / METRICS} line {number}") for number, line in enumerate(lines, 1)]
    except FileError as error:
        raise FileError(f"{error}; delete that line, or train the run again") from None


def metrics_lines(run_dir: Path) -> list[bytes]:
    """Return the unparsed lines of ``metrics.jsonl``. A last line cut off by a crash is left out."""
    try:
        lines = read_bytes(run_dir / METRICS, limit=MAX_METRICS_BYTES).splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]
