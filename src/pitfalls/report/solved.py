"""Tables of the objectives of the bench that solve each graph, and their numbers of samples: short, by objective, and by seed."""

import math
from collections import Counter
from collections.abc import Sequence

from pitfalls.results.formats import MOST_COLUMNS, Table
from pitfalls.results.groups import by_seed, grouped, n_solved, thousands
from pitfalls.results.kept import LOOKUPS, SOLVED, Result, Star
from pitfalls.results.statistics import wilson

NEAR = 0.02
"""Largest distance from 1/d at which a model with its lookups learned counts as guessing the first hop."""
NO_LOOKUPS = 0.5
"""If the lowest accuracy under teacher forcing of the positions besides the first hop is less, the model does not follow edges.

Then its exact match shows nothing about planning.
"""
CONTROL = "next token"
N_SUMMARY = 10
FEW_VALUES = 30
"""Largest number of node values of a graph in the first short table."""

Budgets = dict[int, list[Result]]
"""The seeds of one objective on one graph, by budget: the largest number of samples that a run may see."""
Bench = dict[tuple[Star, str], Budgets]
"""All runs of the bench by graph and method."""


def _bench(results: Sequence[Result]) -> Bench:
    groups = grouped(results, lambda run: (run.star, run.method))
    return {key: grouped(runs, lambda run: run.budget) for key, runs in groups.items()}


def usual_budget(results: Sequence[Result]) -> int:
    """Return the most frequent budget of the runs, in samples."""
    return Counter(run.budget for run in results).most_common(1)[0][0] if results else 0


def at_a_glance(results: Sequence[Result]) -> dict[str, Table]:
    """Return two tables, for few and for many node values, with one row per objective and one column per graph."""
    return {
        "at_a_glance": _glance(results, [run.star for run in results if run.star[2] <= FEW_VALUES], "few node values"),
        "at_a_glance_n50": _glance(results, [run.star for run in results if run.star[2] > FEW_VALUES], "fifty node values"),
    }


def summary(results: Sequence[Result]) -> Table:
    """Return the ten rows of the README, for few node values: the presets that solve most, and next token as the control."""
    presets = [run for run in results if not run.own_settings]
    stars = [run.star for run in presets if run.star[2] <= FEW_VALUES]
    whole, bench, usual = _glance(presets, stars, "few node values"), _bench(presets), usual_budget(presets)
    others = [row[0] for row in whole.rows if row[0] != CONTROL]
    names = [*others[: N_SUMMARY - 1], CONTROL]
    rows = ((name, *(_best_outcome(bench.get((star, name), {}), usual) for star in sorted(set(stars)))) for name in names)
    return Table("Who solves what", whole.header, tuple(rows), f"The best of all budgets. {whole.note}", whole.shown)


def _glance(results: Sequence[Result], stars: Sequence[Star], which: str) -> Table:
    """Return a table with one row per objective, those that solve most first."""
    graphs, usual = sorted(set(stars)), usual_budget(results)
    bench = {key: budgets for key, budgets in _bench(results).items() if key[0] in graphs}

    def place(name: str) -> tuple[float, float]:
        of_name = [budgets for (_, other), budgets in bench.items() if other == name]
        with_usual = sum(_share_solved(budgets.get(usual, [])) for budgets in of_name)
        return -with_usual, -sum(max(map(_share_solved, budgets.values())) for budgets in of_name)

    names = sorted(dict.fromkeys(name for _, name in bench), key=place)
    rows = tuple((name, *(_outcomes(bench.get((graph, name), {}), usual) for graph in graphs)) for name in names)
    header = ("objective", *(f"G({d},{length}), N={n}" for d, length, n in graphs))
    note = (
        f"Seeds that solve the graph (exact match of at least {SOLVED} on all test graphs) of those that were trained, with "
        f"at most {_k(usual)} samples. Where more samples were tried, their number stands before the result. Where no seed "
        f"solves it, the cell says what the best one does. It guesses: its exact match is within {NEAR:g} of 1/d, and every "
        f"other position is at least {LOOKUPS:g} given the gold tokens before it. It has no lookups: some other position is "
        f"below {NO_LOOKUPS:g}. Else its exact match stands there, rounded down. Empty: not trained. First comes what solves "
        f"most with {_k(usual)}."
    )
    return Table(f"At a glance: {which}", header, rows, note, header[:MOST_COLUMNS])


def solved(results: Sequence[Result]) -> Table:
    """Return a table with one row per graph, objective and budget that was enough for some seed."""
    rows = []
    for (_, name), budgets in sorted(_bench(results).items()):
        for budget, runs in sorted(budgets.items()):
            if not (done := [run for run in runs if run.solved]):
                continue
            low, high = wilson(len(done), len(runs))
            within = ", ".join(f"seed {run.seed}: {(run.samples_to_solve or run.record.samples_seen) / 1000:.0f}" for run in done)
            counts = f"{len(done)} of {len(runs)}"
            rows.append((runs[0].graph_text, name, thousands(budget), counts, f"{low:.2f} to {high:.2f}", within))
    note = (
        f"Seeds with an exact match of at least {SOLVED} on all test graphs, of those that were trained with this many samples "
        "at most. Their share: the 95 % Wilson interval over seeds, not over test graphs. Samples to 95 %: at the first "
        "evaluation in training (500 test graphs) that says so. Longer runs begin again, with a schedule of their own."
    )
    header = ("graph, N", "objective", "samples at most (k)", "seeds that solve it", "their share", "samples to 95 % (k)")
    return Table("Who solves what, seed by seed", header, tuple(rows), note)


def by_objective(results: Sequence[Result]) -> dict[str, Table]:
    """Return a table per objective, for its page under docs/objectives/: one row per graph, settings and budget."""
    return {name: _of_objective(name, runs) for name, runs in grouped(results, lambda run: run.objective).items()}


def _of_objective(name: str, results: Sequence[Result]) -> Table:
    rows = []
    for (_, method), budgets in sorted(_bench(results).items()):
        settings = method.partition(" (")[2].removesuffix(")") or "preset"
        for budget, runs in sorted(budgets.items()):
            times = [None if run.samples_to_solve is None else run.samples_to_solve / 1000 for run in runs]
            exact = by_seed([run.exact_match for run in runs])
            row = (runs[0].graph_text, settings, thousands(budget), _outcome(runs), exact, by_seed(times, 0))
            rows.append(row)
    header = ("graph, N", "settings", "samples at most (k)", "seeds that solve it", "exact match", "samples to 95 % (k)")
    note = "The set `objectives`: gpt_slim, one recipe for all. Values are by seed. A dash: it never got there."
    return Table(name.replace("_", " "), header, tuple(rows), note)


def _share_solved(runs: Sequence[Result]) -> float:
    return n_solved(runs) / max(len(runs), 1)


def _k(n_samples: int) -> str:
    return f"{thousands(n_samples)} k"


def _outcomes(budgets: Budgets, usual: int) -> str:
    """Return the outcome of one objective on one graph. A budget is named only if it is not the usual one."""
    return "; ".join(_outcome(runs) if n == usual else f"{_k(n)}: {_outcome(runs)}" for n, runs in sorted(budgets.items()))


def _best_outcome(budgets: Budgets, usual: int) -> str:
    """Return the outcome of the budget with which most seeds solve the graph. Of several, the smallest counts."""
    if not budgets:
        return ""
    best = max(sorted(budgets), key=lambda n: n_solved(budgets[n]))
    return _outcome(budgets[best]) if best == usual else f"{_k(best)}: {_outcome(budgets[best])}"


def _outcome(runs: Sequence[Result]) -> str:
    """Return the number of seeds that solve the graph, or the outcome of the best seed if none does."""
    counts = f"{n_solved(runs)} of {len(runs)}"
    if n_solved(runs):
        return counts
    best = max(runs, key=lambda run: run.exact_match)
    if lacks_lookups([best]):
        return f"{counts}, no lookups"
    if abs(best.exact_match - best.chance) <= NEAR and (best.other_positions or 0.0) >= LOOKUPS:
        return f"{counts}, guesses"
    return f"{counts}, {math.floor(1000 * best.exact_match + 1e-9) / 1000:.3f}"


def lacks_lookups(runs: Sequence[Result]) -> bool:
    """Return whether most seeds have not learned to follow edges."""
    missing = sum(run.other_positions is not None and run.other_positions < NO_LOOKUPS for run in runs)
    return 2 * missing > len(runs)
