"""Which objectives of the bench solve which graphs, whatever the budget: at a glance, and seed by seed."""

from collections.abc import Mapping, Sequence
from typing import Any

from pitfalls.records import graph_name
from pitfalls.report.formats import Table
from pitfalls.report.overview import SOLVED
from pitfalls.results import Result, share

CLEAR = 0.05
"""Two exact matches that differ by less are not told apart."""

UNDERTRAINED = 0.5
"""The share of broken walks above which a method has not learned its lookups: its exact match says nothing of planning."""


def at_a_glance(results: Sequence[Result]) -> Table:
    """A row per objective, a column per graph, what solves most first."""
    cells: dict[tuple[str, tuple[int, int, int]], list[Result]] = {}
    for run, name in zip(results, objective_names([run.config["objective"] for run in results]), strict=True):
        cells.setdefault((name, star_of(run)), []).append(run)
    graphs = sorted({star for _, star in cells})
    names = list(dict.fromkeys(name for name, _ in cells))
    names.sort(key=lambda name: -sum(_n_solved(cells.get((name, graph), [])) > 0 for graph in graphs))
    rows = tuple((name, *(_outcome(cells.get((name, graph), [])) for graph in graphs)) for name in names)
    header = ("objective", *(f"G({d},{length}), N={n}" for d, length, n in graphs))
    note = (
        f"Seeds that solve it (exact match of at least {SOLVED} on all test graphs in some run, longer ones included) of those "
        f"that were trained. Where none does, what the best run does instead: 1/d (within {CLEAR:g} of a guess among the arms), "
        f"no lookups (more than {UNDERTRAINED:g} of its answers are no walk of the graph) or its exact match. Empty: not trained."
    )
    return Table("At a glance", header, rows, note)


def _exact(run: Result) -> float:
    return share(run.test["exact_match"]) or 0.0


def _n_solved(runs: Sequence[Result]) -> int:
    """Seeds, however often they were trained."""
    return len({run.record["seed"] for run in runs if _exact(run) >= SOLVED})


def _outcome(runs: Sequence[Result]) -> str:
    """Of one objective on one graph."""
    if not runs:
        return ""
    if n := _n_solved(runs):
        return f"{n} of {len({run.record['seed'] for run in runs})}"
    best = max(runs, key=_exact)
    if abs(_exact(best) - best.chance) <= CLEAR:
        return "1/d"
    return "no lookups" if (share(best.test["broken_walk"]) or 0.0) > UNDERTRAINED else f"{_exact(best):.2f}"


def solved(results: Sequence[Result]) -> Table:
    """One row per graph and objective that solved it with some seed, whatever the budget."""
    names = objective_names([run.config["objective"] for run in results])
    of_graph: dict[tuple[tuple[int, int, int], str], dict[int, list[int | None]]] = {}
    for run, name in zip(results, names, strict=True):
        ended = run.record["samples_seen"] if _exact(run) >= SOLVED else None
        seeds = of_graph.setdefault((star_of(run), name), {})
        seeds.setdefault(run.record["seed"], []).append(ended)
    rows = []
    for (graph, name), seeds in sorted(of_graph.items()):
        ends = {seed: min(found) for seed, runs in sorted(seeds.items()) if (found := [n for n in runs if n is not None])}
        if ends:
            within = ", ".join(f"seed {seed}: {n / 1000:.0f}" for seed, n in ends.items())
            rows.append((f"G({graph[0]},{graph[1]}), {graph[2]}", name, f"{len(ends)} of {len(seeds)}", within))
    note = f"Seeds with an exact match of at least {SOLVED} on all test graphs in some run, and after how many samples it ended."
    return Table("Who solves what", ("graph, N", "objective", "seeds that solve it", "samples (k)"), tuple(rows), note)


def objective_names(objectives: Sequence[Mapping[str, Any]]) -> list[str]:
    """An objective's name, and the parameters in which the set's runs of it differ."""
    values: dict[tuple[str, str], set[str]] = {}
    for config in objectives:
        for key, value in config.items():
            values.setdefault((config["name"], key), set()).add(str(value))
    names = []
    for config in objectives:
        told = [f"{key}: {value}" for key, value in config.items() if len(values[config["name"], key]) > 1]
        names.append(config["name"].replace("_", " ") + (f" ({', '.join(told)})" if told else ""))
    return names


def star_of(run: Result) -> tuple[int, int, int]:
    """d, l and N."""
    task = run.config["task"]
    return task["degree"], task["path_length"], task["n_values"]


def graph_text(run: Result) -> str:
    """As ``G(d,l), N``."""
    return f"{graph_name(dict(run.config))}, {run.config['task']['n_values']}"
