"""Finished runs of a folder, as the structs that the report's plots take, and as a pandas data frame."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pitfalls.results.kept import Kept, read_kept
from pitfalls.runs import run_folder
from pitfalls.runs.records import Count, CurvePoint, Evaluation, EvaluationRow
from pitfalls.runs.sweeps import run_dirs
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:
    import pandas

RECORDS = "records"
"""Name of the folder of kept records in the results of a set."""


def kept(folder: str | Path = "runs") -> list[Kept]:
    """Return the finished runs of a folder with their learning curves, each run once, sorted by name.

    Args:
        folder: the folder of one run, a folder of runs such as ``runs``, the results of one set such as ``results/laptop``, or
            the results of all sets, ``results``.

    Raises:
        ConfigError: there is no finished run.
        FileError: a record is damaged, or of an older version.
    """
    folder = Path(folder)
    found = {run.record.run: run for run in _read(folder)} if folder.is_dir() else {}
    if not found:
        raise ConfigError(f"{folder}: no finished run there; give a folder of runs (runs) or of kept records (results/laptop)")
    return [found[name] for name in sorted(found)]


def _read(folder: Path) -> Iterator[Kept]:
    files = sorted((*folder.glob(f"{RECORDS}/*.json"), *folder.glob(f"*/{RECORDS}/*.json")))
    yield from map(read_kept, files)
    for run_dir in (folder, *run_dirs(folder)):
        if run_folder.is_finished(run_dir):
            rows = (row for row in run_folder.read_metrics(run_dir) if isinstance(row, EvaluationRow))
            curve = tuple(CurvePoint(row.samples, row.split, row.evaluation) for row in rows)
            yield Kept(run_folder.read_record(run_dir), curve)


def records(folder: str | Path = "runs") -> "pandas.DataFrame":
    """Return one row per finished run of a folder. The index is the name of the run.

    The columns are:

    - the objective, the model, the graph (``degree``, ``path_length``, ``n_values``), the seed, and ``chance`` = 1/d.
    - ``exact_match``, ``first_hop`` and the outcomes on test graphs, as shares, and ``train_exact_match``.
    - ``forced_0``, ``forced_1``, ...: accuracy at each target position, given the gold tokens before it.
    - ``free_0``, ...: accuracy at each position in the method's own answers. ``entropy_0``, ...: mean entropy in nats.
    - ``samples_seen``, ``n_parameters``, ``wall_s`` (seconds), and every key of the config in which the runs differ.

    A number that a run does not have is NaN.

    Args:
        folder: as for `kept`.

    Raises:
        ConfigError: there is no finished run.
    """
    import pandas

    runs = kept(folder)
    longest = max(len(run.positions) for run in runs)
    facts = pandas.DataFrame([_facts(run, longest) for run in runs])
    configs = pandas.DataFrame([_config(run) for run in runs])
    differing = [key for key in configs if configs[key].map(repr).nunique() > 1]
    table = pandas.concat([facts, configs[differing]], axis=1)
    return table.set_index("run")


def _facts(run: Kept, n_positions: int) -> dict[str, Any]:
    def by_position(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
        return {f"{name}_{i}": values[i] if i < len(values) else None for i in range(n_positions)}

    record, train = run.record, run.record.evaluation.get("train")
    return {
        "run": record.run,
        "objective": run.objective,
        "model": run.model,
        "degree": run.degree,
        "path_length": run.config.task.path_length,
        "n_values": run.config.task.n_values,
        "seed": run.seed,
        "chance": run.chance,
        **_shares(record.test),
        "train_exact_match": None if train is None else train.exact_match.share,
        "samples_seen": record.samples_seen,
        "n_parameters": record.n_parameters,
        "wall_s": record.wall_s,
        **by_position("forced", record.test.forced),
        **by_position("free", record.test.free),
        **by_position("entropy", run.entropies or ()),
    }


def _shares(evaluation: Evaluation) -> dict[str, float | None]:
    """Return the whole-answer counts as shares."""
    counts = {name: getattr(evaluation, name) for name in evaluation.__struct_fields__}
    return {name: count.share for name, count in counts.items() if isinstance(count, Count)}


def _config(run: Kept) -> dict[str, Any]:
    """Return the config as dotted keys, without keys that other columns have or that do not change the model."""
    left_out = {
        "seed",
        "task.degree",
        "task.path_length",
        "task.n_values",
        "objective.name",
        "model.name",
        *run_folder.NOT_IDENTITY,
    }
    return {key: value for key, value in run_folder.flatten(msgspec.to_builtins(run.config)) if key not in left_out}
