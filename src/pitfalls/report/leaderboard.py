"""The bench of objectives: one row per graph and objective, its ordering against published ones, and what costs change in it."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from pitfalls.report.formats import Table
from pitfalls.report.overview import SOLVED, by_seed
from pitfalls.report.solved import CLEAR, UNDERTRAINED, graph_text, star_of
from pitfalls.results import Result, share

HEADER = (
    "graph, N", "objective", "horizon", "exact match", "solved", "samples to 95 % (k)", "TFLOP to 95 %", "parameters added",
    "FLOP per sample", "step time", "arm following", "broken walks",
)  # fmt: skip
NOTE = (
    "One trunk and one recipe (conf/experiment/objectives.yaml; on G(5,5) larger initial weights and half the learning "
    "rate), the same samples at most for all, three times as many where the label says longer, eight times where it says "
    "longest; a run stops when it has solved its graph. Values are by seed. Solved: exact match of at least 0.95 on 10,000 "
    "test graphs. Samples and TFLOP to 95 %: at the first evaluation (500 test graphs) with an exact match of at least "
    "0.95. FLOP per sample (forward and backward, heads and second encoders included, counted on samples that are read one "
    "by one) and step time (measured side by side, the edges of a graph read once for all its goals where the method can) "
    "are relative to next token on that graph. Arm following: put onto a wrong arm, the share of answers that walk on along"
    " it (beside an exact match of 1/d it is the cheat; a model that solves the graph may do so as well); a dash where no "
    "first hop can be forced. Broken walks: answers that are no walk of the graph, which tells undertraining from cheating."
)


def of_cells(results: Sequence[Result]) -> list[list[Result]]:
    """The seeds of each cell side by side: by graph, then the best first."""
    cells: dict[str, list[Result]] = {}
    for result in results:
        cells.setdefault(result.cell.name, []).append(result)

    def place(runs: Sequence[Result]) -> tuple[Any, ...]:
        return star_of(runs[0]), -_exact(runs), _samples(runs) or float("inf"), runs[0].cell.label

    return sorted(cells.values(), key=place)


def leaderboard(results: Sequence[Result], step_times: Mapping[str, float]) -> Table:
    """One row per graph and objective.

    Args:
        results: the runs of the set, any seeds.
        step_times: seconds per step relative to next token, by ``<objective> <graph>, <N>``; what is not there is a dash.
    """
    cells = of_cells(results)
    plain = {star_of(runs[0]): _flops(runs[0]) for runs in cells if runs[0].config["objective"]["name"] == "next_token"}
    rows = tuple(_row(runs, plain.get(star_of(runs[0])), step_times) for runs in cells)
    return Table("Objectives", HEADER, rows, f"{NOTE} {_precisions(results)}")


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
            rows.append((graph_text(run), run.cell.label, str(run.record["seed"]), own, asked))
    note = (
        "Exact match by the method's own inference (all test graphs), which is its score, and by other procedures (the probed "
        "graphs). goal_first writes the path backwards, which is the reversed task; blockwise keeps what the heads draft."
    )
    return Table("Asked in other ways", ("graph, N", "objective", "seed", "its own", "others"), tuple(rows), note)


def _row(runs: Sequence[Result], plain: float | None, step_times: Mapping[str, float]) -> tuple[str, ...]:
    first = runs[0]
    exact = [share(run.test["exact_match"]) for run in runs]
    flops = _flops(first)
    relative = "-" if flops is None or plain is None else f"{flops / plain:.2f}"
    time = step_times.get(f"{first.config['objective']['name']} {graph_text(first)}")
    if not _is_preset(first):
        time = None  # they are measured on presets
    following = [_probe(run, "arm_following", "follows") for run in runs]
    return (
        graph_text(first), first.cell.label,
        str(first.record.get("horizon", "-")), by_seed(exact),
        f"{sum(v is not None and v >= SOLVED for v in exact)} of {len(runs)}", by_seed([_thousands(run) for run in runs], 0),
        by_seed([_tera(run) for run in runs], 1), f"{first.record.get('n_objective_parameters', 0):,}", relative,
        "-" if time is None else f"{time:.2f}", by_seed(following), by_seed([share(run.test["broken_walk"]) for run in runs]),
    )  # fmt: skip


def _is_preset(run: Result) -> bool:
    """Whether the objective is its preset."""
    return not any(override.startswith("objective.") for override in run.cell.overrides)


def _exact(runs: Sequence[Result]) -> float:
    """The median over seeds."""
    return median(share(run.test["exact_match"]) or 0.0 for run in runs)


def samples_to_solve(run: Result) -> int | None:
    """Samples seen at the first evaluation with an exact match of at least 0.95; None if there was none."""
    for row in run.curve:
        if row["split"] == "test" and (share(row["evaluation"]["exact_match"]) or 0.0) >= SOLVED:
            return row["samples"]
    return None


def _broken(runs: Sequence[Result]) -> float:
    """The median over seeds."""
    return median(share(run.test["broken_walk"]) or 0.0 for run in runs)


def _samples(runs: Sequence[Result]) -> float | None:
    """The median over the seeds that solved it."""
    found = [n for run in runs if (n := samples_to_solve(run)) is not None]
    return median(found) if found else None


def _flops(run: Result) -> float | None:
    cost = run.record.get("cost")
    return None if cost is None else cost["flops"]


def _thousands(run: Result) -> float | None:
    n = samples_to_solve(run)
    return None if n is None else n / 1000


def _tera(run: Result) -> float | None:
    n, flops = samples_to_solve(run), _flops(run)
    return None if n is None or flops is None else n * flops / 1e12


def _probe(run: Result, name: str, count: str) -> float | None:
    probe: Mapping[str, Any] | None = run.record["probes"].get(name)
    return None if probe is None else share(probe[count])


# ------------------------------------------------------------------ orderings


def agreement(path: Path, results: Sequence[Result]) -> Table:
    """Where our ordering of methods is that of a published table, graph by graph.

    Args:
        path: of the published numbers; ``ours`` of a paper names our objective for each of its methods.
        results: the runs of the set.
    """
    cells = [runs for runs in of_cells(results) if _is_preset(runs[0])]
    rows = []
    for paper in yaml.safe_load(path.read_text()):
        for row in paper["rows"]:
            mine = {runs[0].config["objective"]["name"]: runs for runs in reversed(cells)
                    if star_of(runs[0])[:2] == (row["degree"], row["path_length"])}  # fmt: skip
            both = {ours: (row["numbers"][theirs] / 100, mine[ours]) for theirs, ours in paper["ours"].items()
                    if theirs in row["numbers"] and ours in mine}  # fmt: skip
            if len(both) > 1:
                rows.append((f"G({row['degree']},{row['path_length']})", paper["source"], *_compare(both)))
    note = (
        "Methods side by side: published / ours (the smallest N; median over seeds; of the best cell of its preset, longer "
        f"ones included). A pair of methods is ordered where both differ by more than {CLEAR:g}; undertrained: more than "
        f"{UNDERTRAINED:g} of our answers are broken walks, which orders nothing. Trunk, data and horizons differ from ours: see "
        "the settings beside the published numbers."
    )
    header = ("graph", "source", "published / ours", "pairs ordered alike", "pairs ordered otherwise")
    return Table("Orderings beside published ones", header, tuple(rows), note)


def _compare(both: Mapping[str, tuple[float, Sequence[Result]]]) -> tuple[str, str, str]:
    """Both numbers of each method, how many pairs are ordered alike, and which are ordered otherwise."""
    alike: list[str] = []
    otherwise: list[str] = []
    learned = [name for name, (_, runs) in both.items() if _broken(runs) <= UNDERTRAINED]
    for a, b in itertools.combinations(learned, 2):
        theirs, ours = both[a][0] - both[b][0], _exact(both[a][1]) - _exact(both[b][1])
        if min(abs(theirs), abs(ours)) > CLEAR:
            (alike if theirs * ours > 0 else otherwise).append(f"{a}, {b}")
    texts = {name: f"{name} {theirs:.3f} / {_exact(runs):.3f}" for name, (theirs, runs) in both.items()}
    numbers = ", ".join(text if name in learned else f"{text} (undertrained)" for name, text in texts.items())
    return numbers, str(len(alike)), "; ".join(otherwise) or "none"


def by_cost(results: Sequence[Result]) -> Table:
    """Methods that solve a graph, by samples and by FLOP to 95 %, and the pairs whose order the choice changes."""
    rows = []
    for graph, cells in itertools.groupby(of_cells(results), key=lambda runs: star_of(runs[0])):
        solved = {runs[0].cell.label: (n, n * flops) for runs in cells
                  if (n := _samples(runs)) is not None and (flops := _flops(runs[0])) is not None}  # fmt: skip
        if solved:
            swapped = [f"{a}, {b}" for a, b in itertools.combinations(solved, 2)
                       if (solved[a][0] - solved[b][0]) * (solved[a][1] - solved[b][1]) < 0]  # fmt: skip
            orders = [", ".join(sorted(solved, key=lambda name, i=i: solved[name][i])) for i in (0, 1)]  # type: ignore[misc]
            rows.append((f"G({graph[0]},{graph[1]}), {graph[2]}", *orders, "; ".join(swapped) or "none"))
    header = ("graph, N", "by samples to 95 %", "by FLOP to 95 %", "pairs that change places")
    note = "Medians over the seeds that solved the graph, the least first."
    return Table("Equal samples against equal FLOP", header, tuple(rows), note)
