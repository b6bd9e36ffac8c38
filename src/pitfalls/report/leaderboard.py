"""The bench of objectives: one row per graph and objective, its ordering against published ones, and what costs change in it."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from pitfalls.report.overview import by_seed
from pitfalls.report.solved import NO_LOOKUPS, lacks_lookups
from pitfalls.results.formats import Table
from pitfalls.results.kept import Result, share

CLEAR = 0.05
"""Two exact matches that differ by less are not told apart."""

HEADER = (
    "graph, N",
    "objective",
    "horizon",
    "exact match",
    "solved",
    "samples to 95 % (k)",
    "TFLOP to 95 %",
    "parameters added",
    "trunk tokens",
    "FLOP per sample",
    "step time",
    "arm following",
    "broken walks",
)
NOTE = (
    "By graph, then by the most samples that a run may see, then what most seeds solved, then what the median seed needed "
    "fewest samples for. One trunk and one recipe (conf/experiment/objectives.yaml; on G(5,5) larger initial weights and half "
    "the learning rate), the same samples at most for all, three times as many where the label says longer, eight times where "
    "it says longest; a run stops early once it is right on 0.998 of 500 test graphs. Values are by seed. Solved: exact match "
    "of at least 0.95 on 10,000 test graphs. Samples and TFLOP to 95 %: at the first evaluation (500 test graphs) with an "
    "exact match of at least 0.95. Trunk tokens (positions that the trunk computes per sample), FLOP per sample (forward and "
    "backward, heads and second encoders included, counted on samples that are read one by one) and step time (measured side "
    "by side, the edges of a graph read once for all its goals where the method can{noise}) are relative to next token on that "
    "graph. Arm following: put onto a wrong arm, the share of answers that walk on along it (beside an exact match of 1/d it "
    "is the cheat; a model that solves the graph may do so as well); a dash where no first hop can be forced, and with three "
    "nodes per arm, where only the goal would be left to answer. Broken walks: answers that are no walk of the graph, which "
    "tells undertraining from cheating."
)


def of_cells(results: Sequence[Result]) -> list[list[Result]]:
    """The seeds of each cell side by side: by graph and budget, then what most seeds solved, then what the median one needed."""
    cells: dict[str, list[Result]] = {}
    for result in results:
        cells.setdefault(result.cell.name, []).append(result)

    def place(runs: Sequence[Result]) -> tuple[Any, ...]:
        solved = sum(run.solved for run in runs) / len(runs)
        return runs[0].star, runs[0].budget, -solved, median(map(_to_solve, runs)), -_exact(runs), runs[0].cell.label

    return sorted(cells.values(), key=place)


def leaderboard(results: Sequence[Result], step_times: Mapping[str, float]) -> Table:
    """One row per graph and objective.

    Args:
        results: the runs of the set, any seeds.
        step_times: seconds per step relative to next token, by ``<objective> <graph>, <N>``; what is not there is a dash.
    """
    cells = of_cells(results)
    plain = {runs[0].star: runs[0] for runs in cells if runs[0].config["objective"]["name"] == "next_token"}
    rows = tuple(_row(runs, plain.get(runs[0].star), step_times) for runs in cells)
    same = sorted(time for name, time in step_times.items() if name.startswith("reversed "))
    noise = f"; reversed, the same work as next token, is between {same[0]:.2f} and {same[-1]:.2f}" if same else ""
    return Table("Objectives", HEADER, rows, f"{NOTE.format(noise=noise)} {_precisions(results)}")


def _precisions(results: Sequence[Result]) -> str:
    found = Counter(run.config["training"]["precision"] for run in results)
    return f"Precision as the machine has it: {', '.join(f'{n} runs in {name}' for name, n in sorted(found.items()))}."


def decodings(results: Sequence[Result]) -> Table:
    """One row per run that was asked in other ways than its own as well (probe `other_decodings`)."""
    rows = []
    for run in (run for runs in of_cells(results) for run in runs):
        if others := run.record["probes"].get("other_decodings"):
            asked = ", ".join(f"{name} {share(count):.3f}" for name, count in others.items())
            own = f"{run.test['decoder']} {share(run.test['exact_match']):.3f}"
            rows.append((run.graph_text, run.cell.label, str(run.record["seed"]), own, asked))
    note = (
        "Exact match by the method's own inference (all test graphs), which is its score, and by other procedures (the probed "
        "graphs). goal_first writes the path backwards, which is the reversed task; blockwise keeps what the heads draft."
    )
    return Table("Asked in other ways", ("graph, N", "objective", "seed", "its own", "others"), tuple(rows), note)


def _row(runs: Sequence[Result], plain: Result | None, step_times: Mapping[str, float]) -> tuple[str, ...]:
    first = runs[0]
    time = None if first.own_settings else step_times.get(f"{first.config['objective']['name']} {first.graph_text}")
    following = [_probe(run, "arm_following", "follows") for run in runs]
    return (
        first.graph_text,
        first.cell.label,
        str(first.record.get("horizon", "-")),
        by_seed([run.exact_match for run in runs]),
        f"{sum(run.solved for run in runs)} of {len(runs)}",
        by_seed([_thousands(run) for run in runs], 0),
        by_seed([_tera(run) for run in runs], 1),
        f"{first.record.get('n_objective_parameters', 0):,}",
        _relative(first, plain, "trunk_tokens"),
        _relative(first, plain, "flops"),
        "-" if time is None else f"{time:.2f}",
        by_seed(following),
        by_seed([share(run.test["broken_walk"]) for run in runs]),
    )


def _relative(run: Result, plain: Result | None, what: str) -> str:
    """A cost per sample beside that of next token."""
    cost = run.record.get("cost")
    beside = None if plain is None else plain.record.get("cost")
    return f"{cost[what] / beside[what]:.2f}" if cost and beside else "-"


def _exact(runs: Sequence[Result]) -> float:
    """The median over seeds."""
    return median(run.exact_match for run in runs)


def _to_solve(run: Result) -> float:
    """Samples to 95 %; infinite where it never got there."""
    return float("inf") if run.samples_to_solve is None else run.samples_to_solve


def _flops(run: Result) -> float | None:
    cost = run.record.get("cost")
    return None if cost is None else cost["flops"]


def _thousands(run: Result) -> float | None:
    return None if run.samples_to_solve is None else run.samples_to_solve / 1000


def _tera(run: Result) -> float | None:
    n, flops = run.samples_to_solve, _flops(run)
    return None if n is None or flops is None else n * flops / 1e12


def _probe(run: Result, name: str, count: str) -> float | None:
    probe: Mapping[str, Any] | None = run.record["probes"].get(name)
    return None if probe is None else share(probe[count])


# ------------------------------------------------------------------ orderings


def agreement(path: Path, results: Sequence[Result]) -> Table:
    """Where our ordering of methods is that of a published table, graph by graph and with the same samples at most for ours.

    Args:
        path: of the published numbers; ``ours`` of a paper names our objective for each of its methods.
        results: the runs of the set.
    """
    rows = []
    presets = [run for run in results if not run.own_settings]
    for paper in yaml.safe_load(path.read_text()):
        for row in paper["rows"]:
            for budget, mine in _by_budget(presets, row["degree"], row["path_length"]).items():
                both = {
                    ours: (row["numbers"][theirs] / 100, mine[ours])
                    for theirs, ours in paper["ours"].items()
                    if theirs in row["numbers"] and ours in mine
                }
                if len(both) > 1:
                    graph = next(iter(mine.values()))[0].graph_text
                    rows.append((graph, paper["source"], f"{budget / 1000:,.0f}", *_compare(both, 1 / row["degree"])))
    note = (
        "Methods side by side, all of ours with this many samples at most: published / ours (the smallest N; median over "
        f"seeds, and their number). A pair of methods is ordered where both differ by more than {CLEAR:g}. Undertrained: some "
        f"position of ours besides the first hop is below {NO_LOOKUPS:g} given the gold tokens before it, in most seeds; or the "
        "published number is below half of 1/d. Such a number orders nothing. Not ordered here: pairs that the source orders "
        "and we do not, since one of ours is undertrained or both are alike. Trunk, data and horizons differ from ours: see "
        "the settings beside the numbers."
    )
    header = (
        "graph, N",
        "source",
        "samples at most (k)",
        "published / ours",
        "pairs that the source orders",
        "alike here",
        "otherwise here",
        "not ordered here",
    )
    return Table("Orderings beside published ones", header, tuple(rows), note)


def _by_budget(runs: Sequence[Result], degree: int, path_length: int) -> dict[int, dict[str, list[Result]]]:
    """Runs on a graph with the smallest N: by the samples that they may see, and by objective."""
    same = [run for run in runs if run.star[:2] == (degree, path_length)]
    found: dict[int, dict[str, list[Result]]] = {}
    for run in sorted(same, key=lambda run: run.budget):
        if run.star == min(other.star for other in same):
            found.setdefault(run.budget, {}).setdefault(run.config["objective"]["name"], []).append(run)
    return found


def _compare(both: Mapping[str, tuple[float, Sequence[Result]]], chance: float) -> tuple[str, ...]:
    """Both numbers of each method, how many pairs the source orders, and which are ordered alike, otherwise and not here."""
    ordered: dict[str, list[str]] = {"alike": [], "otherwise": [], "not here": []}
    theirs = {name: published for name, (published, _) in both.items() if published >= chance / 2}
    ours = {name: _exact(runs) for name, (_, runs) in both.items() if not lacks_lookups(runs)}
    for a, b in itertools.combinations(theirs, 2):
        there = theirs[a] - theirs[b]
        if abs(there) <= CLEAR:
            continue
        here = ours[a] - ours[b] if a in ours and b in ours else 0.0
        kind = "not here" if abs(here) <= CLEAR else "alike" if there * here > 0 else "otherwise"
        ordered[kind].append(f"{a} > {b}" if there > 0 else f"{b} > {a}")
    numbers = []
    for name, (published, runs) in both.items():
        told = " (undertrained there)" * (name not in theirs) + " (undertrained)" * (name not in ours)
        numbers.append(f"{name} {published:.3f} / {_exact(runs):.3f} ({len(runs)}){told}")
    return ", ".join(numbers), str(sum(map(len, ordered.values()))), *("; ".join(pairs) or "none" for pairs in ordered.values())


def by_cost(results: Sequence[Result]) -> Table:
    """Methods that solve a graph, by samples and by FLOP to 95 %, and the pairs whose order the choice changes."""
    runs_of: dict[tuple[int, int, int], dict[str, list[Result]]] = {}
    for run in results:
        runs_of.setdefault(run.star, {}).setdefault(run.method, []).append(run)
    rows = []
    for methods in (runs_of[star] for star in sorted(runs_of)):
        costs: dict[str, tuple[float, float]] = {}
        missed = []
        for name, runs in methods.items():
            n, flops = _of_seeds(runs), _flops(runs[0])
            if n < float("inf") and flops is not None:
                costs[name] = n / 1e3, n * flops / 1e12
            elif any(run.samples_to_solve is not None for run in runs):
                missed.append(name)
        if costs:
            swapped = [
                f"{a}, {b}"
                for a, b in itertools.combinations(costs, 2)
                if (costs[a][0] - costs[b][0]) * (costs[a][1] - costs[b][1]) < 0
            ]
            orders = (sorted((cost[i], name) for name, cost in costs.items()) for i in (0, 1))
            texts = (
                "; ".join(f"{name} {cost:,.{i}f} ({_n_seeds(methods[name])})" for cost, name in order)
                for i, order in enumerate(orders)
            )
            graph = next(iter(methods.values()))[0].graph_text
            rows.append((graph, *texts, "; ".join(swapped) or "none", "; ".join(missed) or "none"))
    header = ("graph, N", "thousands of samples to 95 %", "TFLOP to 95 %", "pairs that change places", "not with the median seed")
    note = (
        "Medians over seeds (in brackets: how many), of each its cheapest run, longer ones included; a seed that never got "
        "there counts as infinitely many samples, and a method whose median is infinite though some seed solved the graph is "
        "in the last column. FLOP are counted on samples that are read one by one; training reads the edges of a graph once "
        "for all its goals where a method can, which makes next token and what stands on it cheaper than they are here "
        "(compare step times in the leaderboard)."
    )
    return Table("Equal samples against equal FLOP", header, tuple(rows), note)


def _of_seeds(runs: Sequence[Result]) -> float:
    """Samples to 95 % of the median seed, of each seed the cheapest run."""
    least: dict[int, float] = {}
    for run in runs:
        seed = run.record["seed"]
        least[seed] = min(least.get(seed, float("inf")), _to_solve(run))
    return median(least.values())


def _n_seeds(runs: Sequence[Result]) -> int:
    return len({run.record["seed"] for run in runs})
