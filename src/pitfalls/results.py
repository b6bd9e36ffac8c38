"""Reads what a set of runs left under ``results/<set>/records/`` and judges it by the set's expectations.

One file per cell and seed: the run's record and its learning curve. Everything else under ``results/`` is made from
these files and ``conf/reproduce.yaml``, and a test makes it again and compares.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pitfalls import records

FIRST_HOP = 1


CELL_KEYS = {"label", "expect", "experiment", "overrides", "seeds", "parameters"}
GRID_KEYS = CELL_KEYS | {"name", "over"}
SET_KEYS = {"title", "seeds", "cells", "grid", "gpu_tflops"}


@dataclass(frozen=True)
class CellPlan:
    """One cell of a set: a preset with changes, what to call it, and the bounds that every seed has to keep."""

    name: str
    """Of its record files."""
    experiment: str
    overrides: tuple[str, ...]
    label: str
    expect: Mapping[str, tuple[float, float]]
    seeds: tuple[int, ...]
    parameters: int | None = None
    """Of a model that cannot be built to count them."""


@dataclass(frozen=True)
class Plan:
    """A named set of runs."""

    name: str
    title: str
    cells: tuple[CellPlan, ...]
    gpu_tflops: float | None = None
    """The throughput that GPU-hours are estimated for; an assumption."""


def read_plan(path: Path, name: str) -> Plan:
    """One set of ``conf/reproduce.yaml``.

    Raises:
        ValueError: there is no such set; the message lists those that exist.
    """
    plans = yaml.safe_load(path.read_text())
    if name not in plans:
        raise ValueError(f"{name}: no such set of runs; {path.name} has {', '.join(plans)}")
    plan = plans[name]
    _check_keys(name, plan, SET_KEYS)
    cells = dict(plan.get("cells", {}))
    for entry in plan.get("grid", ()):
        cells |= _expand(name, entry)
    return Plan(
        name, plan["title"], tuple(_cell(key, cell, plan["seeds"]) for key, cell in cells.items()), plan.get("gpu_tflops")
    )


def _check_keys(where: str, data: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(data) - known):
        raise ValueError(f"{where}: {unknown[0]}: no such key; there are {', '.join(sorted(known))}")


def _expand(name: str, entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The cells of a grid, by name: every combination of ``over``, as further overrides."""
    _check_keys(f"{name}: grid", entry, GRID_KEYS)
    shared = {key: value for key, value in entry.items() if key in CELL_KEYS}
    cells = {}
    for values in itertools.product(*entry["over"].values()):
        chosen = dict(zip(entry["over"], values, strict=True))
        overrides = [*(f"{group}={value}" for group, value in chosen.items()), *entry.get("overrides", ())]
        label = entry["label"].format(**{group: value.replace("_", " ") for group, value in chosen.items()})
        key = "_".join((*([entry["name"]] if "name" in entry else []), *values))
        cells[key] = shared | {"overrides": overrides, "label": label}
    return cells


def _cell(key: str, data: Mapping[str, Any], seeds: Sequence[int]) -> CellPlan:
    """One cell of the file; a key that is not ours is a mistake."""
    _check_keys(key, data, CELL_KEYS)
    return CellPlan(
        name=key.split("/")[-1],
        experiment=data.get("experiment", key),
        overrides=tuple(data.get("overrides", ())),
        label=data["label"],
        expect={metric: (low, high) for metric, (low, high) in data["expect"].items()},
        seeds=tuple(data.get("seeds", seeds)),
        parameters=data.get("parameters"),
    )


@dataclass(frozen=True)
class Kept:
    """One finished run, as it is kept under ``results/``."""

    record: Mapping[str, Any]
    curve: tuple[Mapping[str, Any], ...]
    """Evaluations over training: samples, split, evaluation."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved config."""
        return self.record["config"]

    @property
    def degree(self) -> int:
        """D."""
        return int(self.config["task"]["degree"])

    @property
    def other_positions(self) -> float | None:
        """The lowest accuracy of a position besides the first hop, given the gold tokens before it."""
        shares = forced(self.record["evaluation"]["test"])
        return min((v for i, v in enumerate(shares) if i != FIRST_HOP and v is not None), default=None)


@dataclass(frozen=True)
class Result(Kept):
    """One finished run of a set, and what the set expects of it."""

    cell: CellPlan

    @property
    def test(self) -> Mapping[str, Any]:
        """The final evaluation on the test graphs."""
        return self.record["evaluation"]["test"]

    @property
    def chance(self) -> float:
        """1/d."""
        return 1 / self.degree

    def metric(self, name: str) -> float | None:
        """A final number by the name that expectations use; None where the method has none."""
        if name == "other_positions":
            return self.other_positions
        if name == "train_exact_match":
            train = self.record["evaluation"].get("train")
            return share(train["exact_match"]) if train else None
        return share(self.test[name])

    def misses(self) -> list[str]:
        """The expectations that this run does not meet, in words."""
        found = []
        for name, (low, high) in self.cell.expect.items():
            value = self.metric(name)
            if value is None or not low <= value <= high:
                found.append(f"{name} {'missing' if value is None else format(value, '.4f')}, expected {low:g} to {high:g}")
        return found


def samples_text(runs: Sequence[Kept]) -> str:
    """How many samples runs have seen, in thousands."""
    seen = sorted({run.record["samples_seen"] for run in runs})
    texts = list(dict.fromkeys(f"{n / 1000:.0f}" if n >= 10_000 else f"{n / 1000:.1f}" for n in seen))
    return f"{texts[0]} k samples" if len(texts) == 1 else f"{texts[0]} to {texts[-1]} k samples"


def share(count: Mapping[str, int]) -> float | None:
    """k/n, or None of nothing."""
    return count["k"] / count["n"] if count["n"] else None


def forced(evaluation: Mapping[str, Any]) -> list[float | None]:
    """Accuracy per target position under teacher forcing; None where the method does not answer."""
    return [share(count) for count in evaluation["forced_position_accuracy"]]


def free(evaluation: Mapping[str, Any]) -> list[float | None]:
    """Accuracy per target position of the method's own inference."""
    return [share(count) for count in evaluation["free_position_accuracy"]]


def record_file(results_dir: Path, cell: CellPlan, seed: int) -> Path:
    """Where a run's record is kept, below ``results/<set>``."""
    return results_dir / "records" / f"{cell.name}-s{seed}.json"


def keep(run_dir: Path, target: Path) -> None:
    """Copy a finished run's record and learning curve to ``target``.

    Raises:
        ValueError: the record is of an older version; what is kept already stays.
    """
    record = records.read_record(run_dir)
    _check_version(record, run_dir / records.RECORD)
    rows = (row for row in records.read_metrics(run_dir) if row["kind"] == "eval")
    curve = [{key: row[key] for key in ("samples", "split", "evaluation")} for row in rows]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}")
    partial.write_text(json.dumps({"record": record, "curve": curve}) + "\n")
    partial.replace(target)


def read_results(results_dir: Path, plan: Plan) -> list[Result]:
    """The finished runs of a set, in the order of the plan."""
    files = ((cell, record_file(results_dir, cell, seed)) for cell in plan.cells for seed in cell.seeds)
    return [read_result(cell, path) for cell, path in files if path.exists()]


def read_result(cell: CellPlan, path: Path) -> Result:
    """One kept run of a cell.

    Raises:
        ValueError: the file is not a kept record, or one of an older version.
    """
    record, curve = _read(path)
    return Result(record, curve, cell)


def _read(path: Path) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """A kept record and its learning curve."""
    try:
        data = json.loads(path.read_text())
        record, curve = data["record"], tuple(data["curve"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a kept record ({error}); delete it and run its set again") from None
    _check_version(record, path)
    return record, curve


def _check_version(record: Mapping[str, Any], path: Path) -> None:
    if missing := [key for key in ("probes", "examples", "finished") if key not in record]:
        raise ValueError(
            f"{path}: a record of an older version, without {missing[0]}; delete runs/{record.get('run')}/record.json if it is "
            "there, and run its set again: with its checkpoint a run is scored and probed, not trained again"
        )


def unique(results: Iterable[Result]) -> list[Kept]:
    """Every run once, however many sets it belongs to, in the order of their names."""
    kept = {result.record["run"]: result for result in results}
    return [kept[name] for name in sorted(kept)]
