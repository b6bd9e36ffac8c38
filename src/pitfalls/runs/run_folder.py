"""What a run leaves behind: one folder per run, one writer per file, everything plain text or safetensors.

    config.yaml       the resolved config, written before step 0
    metrics.jsonl     one line per logged step or evaluation
    checkpoint/       see `pitfalls.training.checkpoint`
    record.json       written once, at the end, atomically: a run with a record is finished
    failure.json      instead of a record: the last error of a run that did not finish
    running.*         who trains it now (`pitfalls.runs.lock`)

Reads and writes without torch or hydra, so that reports start fast; what is read may come from elsewhere (SECURITY.md).
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pitfalls.runs.files import decode, read_bytes, read_json
from pitfalls.runs.records import EvaluationRow, RecordJson, SummaryJson, TrainRow, impossible_count

RECORD, CONFIG, METRICS, CHECKPOINT, FAILURE = "record.json", "config.yaml", "metrics.jsonl", "checkpoint", "failure.json"

NOT_IDENTITY = ("runs_dir", "trackers", "training.log_every_steps", "training.checkpoint_every_steps", "training.probe_graphs")
"""Config keys that cannot change the trained model."""

MAX_METRICS_BYTES = 2**28
"""Of ``metrics.jsonl``; the longest runs write a few megabytes."""

VERSIONED = ("torch", "transformers", "safetensors", "numpy", "hydra-core", "omegaconf", "pitfalls")
TRACKED = ("src", "conf", "scripts", "constraints.txt")
"""What has to be committed for a result to count as coming from a clean tree."""


def run_id(config: dict[str, Any]) -> str:
    """Twelve hex digits that two configs share exactly if they must give the same numbers.

    Args:
        config: the resolved config (precision and device already decided) as plain data.
    """
    kept = {key: value for key, value in sorted(flatten(config)) if key not in NOT_IDENTITY}
    start = kept.pop("model.init_from", None)
    if start is not None:
        kept["model.init_from"] = Path(start).name  # wherever it lies: the name says which run it is
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:12]


def flatten(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested data as dotted keys."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def graph_name(config: dict[str, Any]) -> str:
    """G(d,l) of a config."""
    return f"G({config['task']['degree']},{config['task']['path_length']})"


def run_name(config: dict[str, Any]) -> str:
    """The folder of a run: readable, and unique by its `run_id`."""
    task = config["task"]
    graph = f"g{task['degree']}_{task['path_length']}-n{task['n_values']}"
    regime = "online" if task["train_graphs"] is None else f"fixed{task['train_graphs']}"
    return "-".join(
        (config["objective"]["name"], config["model"]["name"], graph, regime, f"s{config['seed']}", run_id(config))
    )


def is_finished(run_dir: Path) -> bool:
    """Whether a run needs no more training."""
    return (run_dir / RECORD).exists()


def read_record(run_dir: Path) -> dict[str, Any]:
    """The record of a finished run.

    Raises:
        FileNotFoundError: there is none; the message says what to do.
        ValueError: the file is not the record of a run.
    """
    return cast(dict[str, Any], _read_record(run_dir, RecordJson))


def read_summary(run_dir: Path) -> SummaryJson:
    """The record of a finished run without probes and examples, in a third of the time; raises as `read_record`."""
    return cast(SummaryJson, _read_record(run_dir, SummaryJson))


def _read_record(run_dir: Path, of_type: Any) -> Any:
    path = run_dir / RECORD
    try:
        record = read_json(path, of_type)
        check_counts([record["evaluation"], record.get("probes")], path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no record, so this run has not finished; train it to the end first") from None
    except ValueError as error:
        raise ValueError(
            f"{error}; not the record of a run, or of an older version: delete the file and start the run again (from its "
            "checkpoint it is scored and probed, not trained again)"
        ) from None
    return record


def check_counts(data: object, source: object) -> None:
    """Refuse counts of more than all.

    Raises:
        ValueError: names the first one.
    """
    if (count := impossible_count(data)) is not None:
        raise ValueError(f"{source}: {count} is no count of k among n")


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; a last line cut off by a crash is left out.

    Raises:
        ValueError: another line is broken; names it.
    """
    path = run_dir / METRICS
    try:
        lines = read_bytes(path, limit=MAX_METRICS_BYTES).splitlines(keepends=True)
    except FileNotFoundError:
        return []
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return [_metrics_row(line, f"{path} line {number}") for number, line in enumerate(lines, 1)]


def _metrics_row(line: bytes, source: str) -> dict[str, Any]:
    """One event; rows of evaluations are checked whole, others hold a step, samples and numbers."""
    row = decode(line, dict, source)
    of_type: Any = EvaluationRow if row.get("kind") == "eval" else TrainRow
    checked = decode(line, of_type, source)
    check_counts(row, source)
    return cast(dict[str, Any], row if of_type is TrainRow else checked)


def environment(root: Path) -> dict[str, Any]:
    """Commit, versions and hardware, as they are now.

    Args:
        root: the checkout; outside of one the commit is null.
    """
    return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": _dirty(root), **_versions(), "hardware": _hardware()}


def _git(root: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _dirty(root: Path) -> bool | None:
    status = _git(root, "status", "--porcelain", "--", *TRACKED)
    return None if status is None else bool(status)


def _versions() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    return {"versions": versions | {name: importlib.metadata.version(name) for name in VERSIONED}}


def _hardware() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "n_cpus": os.cpu_count(), "system": platform.system()}
