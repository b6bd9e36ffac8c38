"""The table of a set of runs: one row per cell for people, one row per cell and seed as CSV."""

import csv
import io
from collections.abc import Sequence

from pitfalls.results.formats import Table
from pitfalls.results.kept import Result, forced, free, samples_text, share
from pitfalls.results.statistics import wilson
from pitfalls.runs.run_folder import graph_name

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
"""position_accuracy is read under teacher forcing (each position given the gold tokens before it)."""

NOTE = (
    "Accuracies are on {n} test graphs that never occur in training. Positions are target positions under teacher forcing, "
    "start to goal; the second one is the first hop. A dash is a position that the method does not answer. Brackets: 95 % "
    "Wilson interval of one run, or each seed's value. The paper's own tables could not be read here: compare with 1/d and "
    "with its qualitative claims."
)


def regime(result: Result) -> str:
    """Online, or the size of the fixed training set."""
    graphs = result.config["task"]["train_graphs"]
    return "online" if graphs is None else f"fixed {graphs}"


def number(value: float | None, digits: int = 4) -> str:
    """A share with fixed digits; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def csv_row(result: Result) -> dict[str, str]:
    """The CSV row of one run; empty where a method has no such number."""
    test, train = result.test, result.record["evaluation"].get("train")
    exact = test["exact_match"]
    low, high = (wilson(exact["k"], exact["n"])) if exact["n"] else (None, None)
    values: dict[str, object] = {
        "cell": result.cell.name,
        "objective": result.config["objective"]["name"],
        "model": result.config["model"]["name"],
        "graph": graph_name(dict(result.config)),
        "n_values": result.config["task"]["n_values"],
        "regime": regime(result),
        "seed": result.record["seed"],
        "samples_seen": result.record["samples_seen"],
        "exact_match_low": low,
        "exact_match_high": high,
        "position_accuracy": " ".join(number(v) for v in forced(test)),
        "free_position_accuracy": " ".join(number(v) for v in free(test)),
        "train_exact_match": share(train["exact_match"]) if train else None,
        "train_first_hop": share(train["first_hop"]) if train else None,
        "n_parameters": result.record["n_parameters"],
        "wall_s": f"{result.record['wall_s']:.0f}",
        "chance": result.chance,
        "as_expected": ("no" if result.misses() else "yes") if result.cell.expect else "",
    }
    values |= {name: share(test[name]) for name in ("exact_match", "first_hop", *OUTCOMES)}
    return {name: _plain(values[name]) for name in COLUMNS}


def _plain(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def to_csv(results: Sequence[Result]) -> str:
    """The whole table, one line per cell and seed."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_row(result) for result in results)
    return out.getvalue()


HEADER = ("cell", "model", "graph, N", "samples", "exact match", "first hop", "per position", "train exact match", "as expected")


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row of text per cell; several seeds share it."""
    by_cell: dict[str, list[Result]] = {}
    for result in results:
        by_cell.setdefault(result.cell.name, []).append(result)
    return [_row(seeds) for seeds in by_cell.values()]


def _row(seeds: list[Result]) -> tuple[str, ...]:
    first = seeds[0]
    met = sum(not result.misses() for result in seeds)
    verdict = f"{met} of {len(seeds)}" if first.cell.expect else "no expectation"
    return (
        first.cell.label + (f" ({regime(first)[6:]})" if regime(first) != "online" else ""),
        first.config["model"]["name"],
        f"{graph_name(dict(first.config))}, {first.config['task']['n_values']}",
        samples_text(seeds).removesuffix(" samples"),
        _accuracy(seeds, [result.test["exact_match"] for result in seeds]),
        " / ".join(number(share(result.test["first_hop"]), 3) for result in seeds),
        " ".join(_worst(column) for column in zip(*(forced(result.test) for result in seeds), strict=True)),
        " / ".join(number(result.metric("train_exact_match"), 3) for result in seeds),
        verdict,
    )


def _accuracy(seeds: list[Result], counts: list[dict[str, int]]) -> str:
    if len(seeds) > 1 or not counts[0]["n"]:
        return " / ".join(number(share(count), 3) for count in counts)
    low, high = wilson(counts[0]["k"], counts[0]["n"])
    return f"{number(share(counts[0]), 3)} [{low:.3f}, {high:.3f}]"


def _worst(column: Sequence[float | None]) -> str:
    """The lowest value of the seeds: a mean would hide a seed that failed."""
    values = [v for v in column if v is not None]
    return number(min(values), 3) if values else "-"


def of_set(results: Sequence[Result], title: str) -> Table:
    """One row per cell, with its note."""
    n = " or ".join(sorted({f"{result.test['first_hop']['n']:,}" for result in results}))
    several = " Per position: the lowest of the seeds." if len({r.record["seed"] for r in results}) > 1 else ""
    return Table(title, HEADER, tuple(rows(results)), NOTE.format(n=n) + several)
