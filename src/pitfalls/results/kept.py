"""Kept runs: the records of a set in ``<results>/<set>/records/``, and how they compare with the set's expectations.

One file per cell and seed holds the run's record and its learning curve. Everything else under ``results/`` is made from
these files and ``conf/``. A test makes the tables again and compares.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import UNSET, Struct

from pitfalls.results.plans import Cell, Plan
from pitfalls.runs.counts import check_lengths, per_position
from pitfalls.runs.files import FileError, read_json, write_bytes
from pitfalls.runs.records import ConfigRecord, CurvePoint, EvaluationRow, Record
from pitfalls.runs.run_folder import read_metrics, read_record
from pitfalls.schemas import DIGEST

SOLVED = 0.95
"""Exact match from which on a run counts as solved."""
LOOKUPS = 0.95
"""Accuracy, given the gold tokens before it, that every position besides the first hop reaches when the lookups are learned."""
OF_OBJECTIVE = "objective."
"""Prefix of an override that sets a parameter of the objective."""

Star = tuple[int, int, int]
"""Sizes d, l and N of a path-star graph."""


class Kept(Struct, frozen=True, forbid_unknown_fields=True):
    """One finished run: the content of a file of ``results/*/records/``."""

    record: Record
    curve: tuple[CurvePoint, ...]
    """Evaluations over training."""

    def __post_init__(self) -> None:
        check_lengths(per_position(point.evaluation for point in self.curve), self.config.task.path_length)

    @property
    def config(self) -> ConfigRecord:
        """The resolved config."""
        return self.record.config

    @property
    def objective(self) -> str:
        return self.config.objective_name

    @property
    def model(self) -> str:
        """The name of the model's preset."""
        return self.config.model_name

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def degree(self) -> int:
        """Number of arms d."""
        return self.config.task.degree

    @property
    def chance(self) -> float:
        """Exact match of a guess among the arms, 1/d."""
        return 1 / self.degree

    @property
    def star(self) -> Star:
        """Sizes d, l and N of the graph."""
        task = self.config.task
        return task.degree, task.path_length, task.n_values

    @property
    def graph_text(self) -> str:
        """The graph as ``G(d,l), N``."""
        return f"{self.config.graph}, {self.config.task.n_values}"

    @property
    def graph_label(self) -> str:
        """The graph as ``G(d,l), N=...``."""
        return f"{self.config.graph}, N={self.config.task.n_values}"

    @property
    def data_text(self) -> str:
        """The training data in words: new graphs, or how many fixed ones."""
        graphs = self.config.task.train_graphs
        return "new graphs" if graphs is None else f"{graphs:,} graphs"

    @property
    def positions(self) -> list[str]:
        """Names of the target positions, start to goal."""
        length = self.config.task.path_length
        return ["start", "first hop", *(f"v{p}" for p in range(2, length - 1)), "goal"][:length]

    @property
    def entropies(self) -> list[float] | None:
        """Mean entropy per target position in nats. It is None for a method without a forced reading."""
        probe = self.record.probes.uncertainty
        return None if probe is None else [moments.mean for moments in probe.entropy]

    @property
    def other_positions(self) -> float | None:
        """The lowest accuracy of a position besides the first hop, given the gold tokens before it."""
        return self.record.test.other_positions

    @property
    def exact_match(self) -> float:
        """Exact match on all test graphs. It is 0 for a method that does not answer whole paths."""
        return self.record.test.exact_match.share or 0.0

    @property
    def solved(self) -> bool:
        """Whether exact match is at least `SOLVED`."""
        return self.exact_match >= SOLVED

    @property
    def test_curve(self) -> list[CurvePoint]:
        """The evaluations on test graphs."""
        return [point for point in self.curve if point.split == "test"]

    @property
    def samples_to_solve(self) -> int | None:
        """Number of training samples at the first evaluation that counts as solved, or None if there was none."""
        for point in self.test_curve:
            if (point.evaluation.exact_match.share or 0.0) >= SOLVED:
                return point.samples
        return None

    @property
    def samples_to_lookups(self) -> int | None:
        """Number of training samples at the first evaluation with all lookups learned, or None if there was none."""
        for point in self.test_curve:
            if (point.evaluation.other_positions or 0.0) >= LOOKUPS:
                return point.samples
        return None

    @property
    def flops(self) -> float | None:
        """FLOP of one training sample. The first records do not have it: then it is None."""
        return None if self.record.cost is UNSET else self.record.cost.flops

    @property
    def budget(self) -> int:
        """Largest number of samples that the run may see. It stops earlier once it has solved its graph."""
        return self.config.max_samples


class Result(Kept, frozen=True):
    """One finished run of a set, with its cell in that set."""

    cell: Cell

    @property
    def own_settings(self) -> tuple[str, ...]:
        """Overrides of the objective's parameters, without the prefix ``objective.``."""
        return tuple(text.removeprefix(OF_OBJECTIVE) for text in self.cell.overrides if text.startswith(OF_OBJECTIVE))

    @property
    def method(self) -> str:
        """Name of the objective, followed by its changed parameters."""
        told = ", ".join(text.replace("=", ": ") for text in self.own_settings)
        return self.objective.replace("_", " ") + (f" ({told})" if told else "")

    def metric(self, name: str) -> float | None:
        """Return a final number by the name that expectations use (`METRICS`), or None where the method has none."""
        if name == "other_positions":
            return self.other_positions
        if name == "train_exact_match":
            train = self.record.evaluation.get("train")
            return None if train is None else train.exact_match.share
        count = getattr(self.record.test, name)
        return None if count is UNSET else count.share

    def misses(self) -> list[str]:
        """Return in words the expectations that this run does not meet."""
        found = []
        for name, (low, high) in self.cell.expect.items():
            value = self.metric(name)
            if value is None or not low <= value <= high:
                found.append(f"{name} {'missing' if value is None else format(value, '.4f')}, expected {low:g} to {high:g}")
        return found


def record_file(results_dir: Path, cell: Cell, seed: int) -> Path:
    """Return the path of a run's kept record, relative to the folder of its set."""
    return results_dir / "records" / f"{cell.name}-s{seed}.json"


def keep(run_dir: Path, target: Path) -> None:
    """Write a finished run's record and learning curve to ``target``. Of the folders that its config names, only names are kept.

    Raises:
        FileError: the record is of an older version. An existing ``target`` is not touched.
    """
    record = read_record(run_dir)
    config, model = record.config, dict(record.config.model)  # a path means nothing on another machine
    folders = ("init_from", "source") if str(model.get("revision")).startswith(DIGEST) else ("init_from",)
    model |= {key: Path(str(model[key])).name for key in folders if model.get(key) is not None}
    config = msgspec.structs.replace(config, runs_dir=Path(config.runs_dir).name, model=model)
    record = msgspec.structs.replace(record, config=config)
    rows = (row for row in read_metrics(run_dir) if isinstance(row, EvaluationRow))
    kept = Kept(record, tuple(CurvePoint(row.samples, row.split, row.evaluation) for row in rows))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, json.dumps(msgspec.to_builtins(kept), allow_nan=False).encode() + b"\n")


def read_results(results_dir: Path, plan: Plan) -> list[Result]:
    """Return the finished runs of a set, in the order of the plan."""
    files = ((cell, record_file(results_dir, cell, seed)) for cell in plan.cells for seed in cell.seeds)
    return [read_result(cell, path) for cell, path in files if path.exists()]


def read_result(cell: Cell, path: Path) -> Result:
    """Return one kept run of a cell.

    Raises:
        FileError: the file is not a kept record, or one of an older version.
    """
    kept = read_kept(path)
    return Result(kept.record, kept.curve, cell)


def read_kept(path: Path) -> Kept:
    """Return a kept record with its learning curve.

    Raises:
        FileError: the file is not a kept record, or one of an older version.
    """
    try:
        return read_json(path, Kept)
    except ValueError as error:
        raise FileError(f"{error}; not a kept record: delete it and run its set again") from None


def unique(results: Iterable[Result]) -> list[Result]:
    """Return every run once, even if it belongs to several sets. The runs are sorted by name."""
    kept = {result.record.run: result for result in results}
    return [kept[name] for name in sorted(kept)]
