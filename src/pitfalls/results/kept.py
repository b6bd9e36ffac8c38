"""Reads what a set of runs left under ``results/<set>/records/`` and judges it by the set's expectations.

One file per cell and seed: the run's record and its learning curve. Everything else under ``results/`` is made from
these files and ``conf/``; a test makes the texts again and compares.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pitfalls.results.plans import Cell, Plan
from pitfalls.runs import run_folder
from pitfalls.runs.files import read_json, write_bytes
from pitfalls.runs.records import KeptJson
from pitfalls.runs.run_folder import graph_name, run_id

FIRST_HOP = 1
SOLVED = 0.95
"""Exact match from which on a run counts as solved."""
OF_OBJECTIVE = "objective."
"""How an override of an objective's parameter begins."""


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
    def star(self) -> tuple[int, int, int]:
        """D, l and N."""
        task = self.config["task"]
        return task["degree"], task["path_length"], task["n_values"]

    @property
    def graph_text(self) -> str:
        """As ``G(d,l), N``."""
        return f"{graph_name(dict(self.config))}, {self.config['task']['n_values']}"

    @property
    def positions(self) -> list[str]:
        """Names of the target positions, start to goal."""
        length = self.config["task"]["path_length"]
        return ["start", "first hop", *(f"v{p}" for p in range(2, length - 1)), "goal"][:length]

    @property
    def entropies(self) -> list[float] | None:
        """Mean entropy in nats per target position; None for a method without a forced reading."""
        probe = self.record["probes"]["uncertainty"]
        return None if probe is None else [e["sum"] / e["n"] for e in probe["entropy"]]

    @property
    def other_positions(self) -> float | None:
        """The lowest accuracy of a position besides the first hop, given the gold tokens before it."""
        shares = forced(self.record["evaluation"]["test"])
        return min((v for i, v in enumerate(shares) if i != FIRST_HOP and v is not None), default=None)

    @property
    def exact_match(self) -> float:
        """On all test graphs."""
        return share(self.record["evaluation"]["test"]["exact_match"]) or 0.0

    @property
    def solved(self) -> bool:
        """Whether it is right on nearly all test graphs."""
        return self.exact_match >= SOLVED

    @property
    def samples_to_solve(self) -> int | None:
        """Samples seen at the first evaluation of training that counts as solved; None if there was none."""
        for row in self.curve:
            if row["split"] == "test" and (share(row["evaluation"]["exact_match"]) or 0.0) >= SOLVED:
                return int(row["samples"])
        return None


@dataclass(frozen=True)
class Result(Kept):
    """One finished run of a set, and what the set expects of it."""

    cell: Cell

    @property
    def own_settings(self) -> tuple[str, ...]:
        """Where its objective is not the preset: the overrides, without the group's name."""
        return tuple(text.removeprefix(OF_OBJECTIVE) for text in self.cell.overrides if text.startswith(OF_OBJECTIVE))

    @property
    def method(self) -> str:
        """Its objective in words, with what differs from the preset."""
        told = ", ".join(text.replace("=", ": ") for text in self.own_settings)
        return self.config["objective"]["name"].replace("_", " ") + (f" ({told})" if told else "")

    @property
    def budget(self) -> int:
        """The most samples that it may see; it stops earlier where it has solved its graph."""
        training = self.config["training"]
        return int(training["n_steps"] * training["batch_size"])

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


def group(kept: Sequence[Kept]) -> list[list[Kept]]:
    """Runs that differ in nothing but the seed side by side, in its order."""
    cells: dict[str, list[Kept]] = {}
    for run in kept:
        cells.setdefault(run_id({**run.config, "seed": None}), []).append(run)
    return [sorted(runs, key=lambda run: run.record["seed"]) for runs in cells.values()]


def cell_of(runs: Sequence[Kept]) -> str:
    """What the runs of a cell trained, in words."""
    config = runs[0].config
    task = config["task"]
    graphs = "new graphs" if task["train_graphs"] is None else f"{task['train_graphs']:,} graphs"
    return (
        f"{config['objective']['name']}, {config['model']['name']}, {graph_name(dict(config))} N={task['n_values']}, "
        f"{graphs}, {samples_text(runs)}, {config['training']['precision']}"
    )


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


def record_file(results_dir: Path, cell: Cell, seed: int) -> Path:
    """Where a run's record is kept, below ``results/<set>``."""
    return results_dir / "records" / f"{cell.name}-s{seed}.json"


def keep(run_dir: Path, target: Path) -> None:
    """Copy a finished run's record and learning curve to ``target``, without the folder that it was made in.

    Raises:
        ValueError: the record is of an older version; what is kept already stays.
    """
    record = run_folder.read_record(run_dir)
    record["config"]["runs_dir"] = Path(record["config"]["runs_dir"]).name  # whoever reads it has another machine
    rows = (row for row in run_folder.read_metrics(run_dir) if row["kind"] == "eval")
    curve = [{key: row[key] for key in ("samples", "split", "evaluation")} for row in rows]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, json.dumps({"record": record, "curve": curve}).encode() + b"\n")


def read_results(results_dir: Path, plan: Plan) -> list[Result]:
    """The finished runs of a set, in the order of the plan."""
    files = ((cell, record_file(results_dir, cell, seed)) for cell in plan.cells for seed in cell.seeds)
    return [read_result(cell, path) for cell, path in files if path.exists()]


def read_result(cell: Cell, path: Path) -> Result:
    """One kept run of a cell.

    Raises:
        ValueError: the file is not a kept record, or one of an older version.
    """
    record, curve = _read(path)
    return Result(record, curve, cell)


def _read(path: Path) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """A kept record and its learning curve."""
    try:
        kept = read_json(path, KeptJson)
        run_folder.check_counts(kept, path)
    except ValueError as error:
        raise ValueError(f"{error}; not a kept record: delete it and run its set again") from None
    return cast(dict[str, Any], kept["record"]), tuple(cast(list[dict[str, Any]], kept["curve"]))


def unique(results: Iterable[Result]) -> list[Kept]:
    """Every run once, however many sets it belongs to, in the order of their names."""
    kept = {result.record["run"]: result for result in results}
    return [kept[name] for name in sorted(kept)]
