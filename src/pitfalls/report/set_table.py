"""The table of a set of runs: one row per cell for people (``table.md``), one row per run in ``table.csv``."""

import csv
import io
from collections.abc import Sequence

from msgspec import UNSET

from pitfalls.results.formats import Table
from pitfalls.results.groups import by_seed, grouped, samples_text
from pitfalls.results.kept import Result
from pitfalls.results.statistics import wilson

OUTCOMES = ("right_arm", "wrong_arm", "wrong_arm_then_goal", "broken_walk")
COLUMNS = (
    "cell",
    "objective",
    "model",
    "graph",
    "n_values",
    "regime",
    "seed",
    "samples_seen",
    "exact_match",
    "exact_match_low",
    "exact_match_high",
    "first_hop",
    "position_accuracy",
    "free_position_accuracy",
    *OUTCOMES,
    "train_exact_match",
    "train_first_hop",
    "n_parameters",
    "wall_s",
    "chance",
    "as_expected",
)
"""Columns of the CSV. ``position_accuracy`` is under teacher forcing: each position given the gold tokens before it."""
HEADER = ("cell", "graph, N", "samples", "exact match", "other positions", "as expected")
NOTE = (
    "Accuracies are on {n} test graphs that never occur in training. Other positions: the lowest accuracy of a position "
    "besides the first hop, given the gold tokens before it; at 0.95 the lookups are learned. A dash: the method does not "
    "answer. Brackets: 95 % Wilson interval of one run; else each seed's value. table.csv has every position, model and seed. "
    "The paper's own tables could not be read here: compare with 1/d and with its qualitative claims."
)


def set_table(results: Sequence[Result], title: str) -> Table:
    """Return the table of a set: one row per cell, with the values of all seeds."""
    n = " or ".join(sorted({f"{result.record.test.first_hop.n:,}" for result in results}))
    rows = tuple(_row(runs) for runs in grouped(results, lambda run: run.cell.name).values())
    return Table(title, HEADER, rows, NOTE.format(n=n))


def _row(runs: Sequence[Result]) -> tuple[str, ...]:
    first = runs[0]
    met = sum(not run.misses() for run in runs)
    data = "" if first.config.task.train_graphs is None else f" ({first.config.task.train_graphs})"
    return (
        first.cell.label + data,
        first.graph_text,
        samples_text(runs),
        _accuracy(runs),
        by_seed([run.other_positions for run in runs]),
        f"{met} of {len(runs)}" if first.cell.expect else "no expectation",
    )


def _accuracy(runs: Sequence[Result]) -> str:
    """Return exact match by seed, with an interval for a single seed, or the first hop if the method answers nothing else."""
    counts = [run.record.test.exact_match for run in runs]
    if not counts[0].n:
        return f"first hop {by_seed([run.record.test.first_hop.share for run in runs])}"
    if len(runs) > 1:
        return by_seed([count.share for count in counts])
    low, high = wilson(counts[0].k, counts[0].n)
    return f"{by_seed([counts[0].share])} [{low:.3f}, {high:.3f}]"


def to_csv(results: Sequence[Result]) -> str:
    """Return the whole table as CSV, one line per cell and seed."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_row(result) for result in results)
    return out.getvalue()


def csv_row(result: Result) -> dict[str, str]:
    """Return the CSV row of one run. A cell is empty if the method has no such number."""
    record, test, train = result.record, result.record.test, result.record.evaluation.get("train")
    exact, graphs = test.exact_match, result.config.task.train_graphs
    low, high = wilson(exact.k, exact.n) if exact.n else (None, None)
    values: dict[str, object] = {
        "cell": result.cell.name,
        "objective": result.objective,
        "model": result.model,
        "graph": result.config.graph,
        "n_values": result.config.task.n_values,
        "regime": "online" if graphs is None else f"fixed {graphs}",
        "seed": result.seed,
        "samples_seen": record.samples_seen,
        "exact_match_low": low,
        "exact_match_high": high,
        "position_accuracy": " ".join(map(_number, test.forced)),
        "free_position_accuracy": " ".join(map(_number, test.free)),
        "train_exact_match": None if train is None else train.exact_match.share,
        "train_first_hop": None if train is None else train.first_hop.share,
        "n_parameters": record.n_parameters,
        "wall_s": f"{record.wall_s:.0f}",
        "chance": result.chance,
        "as_expected": ("no" if result.misses() else "yes") if result.cell.expect else "",
    }
    for name in ("exact_match", "first_hop", *OUTCOMES):
        count = getattr(test, name)
        values[name] = None if count is UNSET else count.share
    return {name: _plain(values[name]) for name in COLUMNS}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
