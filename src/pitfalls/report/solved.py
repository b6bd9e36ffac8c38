"""Which objectives of the bench solve which graphs with how many samples: at a glance, and seed by seed."""

from collections.abc import Sequence

from pitfalls.report.formats import Table
from pitfalls.report.overview import SOLVED
from pitfalls.report.statistics import wilson
from pitfalls.results import Result, share

CLEAR = 0.05
"""Two exact matches that differ by less are not told apart."""

UNDERTRAINED = 0.5
"""The share of broken walks above which a method has not learned its lookups: its exact match says nothing of planning."""

NEAR_CHANCE, FEW = 0.02, 0.1
"""So near to 1/d, with fewer broken walks than this, a model guesses among the arms."""

Budgets = dict[int, list[Result]]
"""The seeds of one objective on one graph, by the most samples that they may see."""


def at_a_glance(results: Sequence[Result]) -> Table:
    """A row per objective, a column per graph, what solves most first."""
    cells = _by_budget(results)
    graphs = sorted({star for star, _ in cells})
    names = list(dict.fromkeys(name for _, name in cells))
    least = min(budget for budgets in cells.values() for budget in budgets)

    def place(name: str) -> tuple[int, float]:
        best = [max(_n_solved(runs) / _n_seeds(runs) for runs in cells[key].values()) for key in cells if key[1] == name]
        return -sum(share > 0 for share in best), -sum(best)

    names.sort(key=place)
    rows = tuple((name, *(_outcomes(cells.get((graph, name), {}), least) for graph in graphs)) for name in names)
    header = ("objective", *(f"G({d},{length}), N={n}" for d, length, n in graphs))
    note = (
        f"Seeds that solve it (exact match of at least {SOLVED} on all test graphs) of those that were trained, with at most "
        f"{_k(least)} samples; behind a semicolon, with at most as many as are named there. Where none does, what the best seed "
        f"does instead: 1/d (within {NEAR_CHANCE:g} of a guess among the arms, and less than {FEW:g} of its answers no walk of "
        f"the graph), no lookups (more than {UNDERTRAINED:g} no walk, and less than half of what a guess gets), or its exact "
        "match. Empty: not trained."
    )
    return Table("At a glance", header, rows, note)


def solved(results: Sequence[Result]) -> Table:
    """One row per graph, objective and budget that was enough for some seed."""
    rows = []
    for (_, name), budgets in sorted(_by_budget(results).items()):
        for budget, runs in sorted(budgets.items()):
            ends = {run.record["seed"]: run.record["samples_seen"] for run in runs if _exact(run) >= SOLVED}
            if ends:
                low, high = wilson(len(ends), _n_seeds(runs))
                within = ", ".join(f"seed {seed}: {n / 1000:.0f}" for seed, n in sorted(ends.items()))
                counts = f"{len(ends)} of {_n_seeds(runs)}"
                rows.append((runs[0].graph_text, name, f"{budget / 1000:,.0f}", counts, f"{low:.2f} to {high:.2f}", within))
    note = (
        f"Seeds with an exact match of at least {SOLVED} on all test graphs, of those that were trained with this many samples "
        "at most; the 95 % Wilson interval of that share, over seeds and not test graphs; and after how many samples each ended. "
        "Longer runs begin again, with a schedule of their own."
    )
    header = ("graph, N", "objective", "samples at most (k)", "seeds that solve it", "their share", "ended after (k)")
    return Table("Who solves what", header, tuple(rows), note)


def _by_budget(results: Sequence[Result]) -> dict[tuple[tuple[int, int, int], str], Budgets]:
    """By graph and objective."""
    cells: dict[tuple[tuple[int, int, int], str], Budgets] = {}
    for run in results:
        cells.setdefault((run.star, run.method), {}).setdefault(run.budget, []).append(run)
    return cells


def _exact(run: Result) -> float:
    return share(run.test["exact_match"]) or 0.0


def _n_seeds(runs: Sequence[Result]) -> int:
    return len({run.record["seed"] for run in runs})


def _n_solved(runs: Sequence[Result]) -> int:
    return len({run.record["seed"] for run in runs if _exact(run) >= SOLVED})


def _k(n_samples: int) -> str:
    return f"{n_samples / 1000:,.0f} k"


def _outcomes(budgets: Budgets, least: int) -> str:
    """Of one objective on one graph; only what is not the bench's own budget is named."""
    return "; ".join(_outcome(runs) if n == least else f"{_k(n)}: {_outcome(runs)}" for n, runs in sorted(budgets.items()))


def _outcome(runs: Sequence[Result]) -> str:
    if n := _n_solved(runs):
        return f"{n} of {_n_seeds(runs)}"
    best = max(runs, key=_exact)
    exact, broken = _exact(best), share(best.test["broken_walk"]) or 0.0
    if abs(exact - best.chance) <= NEAR_CHANCE and broken < FEW:
        return "1/d"
    return "no lookups" if broken > UNDERTRAINED and exact < best.chance / 2 else f"{exact:.2f}"
