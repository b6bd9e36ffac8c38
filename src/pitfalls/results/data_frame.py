"""Finished runs of a folder, as the structs that the report's plots take, and as a pandas data frame."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pitfalls.results.kept import Kept, read_kept
from pitfalls.runs import run_folder
from pitfalls.runs.collection import table
from pitfalls.runs.records import CurvePoint, EvaluationRow
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

    `pitfalls.runs.collection.table` explains the columns. The most used ones are ``objective``, ``model``, ``degree``, ``seed``,
    ``exact_match`` and ``first_hop`` on test graphs, ``forced_1`` (accuracy of the first hop, given the gold tokens before it),
    and the keys of the config in which the runs differ, such as ``training.lr``.

    A number that a run does not have is NaN.

    Args:
        folder: as for `kept`.

    Raises:
        ConfigError: there is no finished run.
    """
    import pandas

    return pandas.DataFrame(table(run.record for run in kept(folder))).set_index("run")
