"""Which objectives of the bench solve which graphs with how many samples: at a glance, and seed by seed."""

import math
from collections import Counter
from collections.abc import Sequence

from pitfalls.results.formats import Table
from pitfalls.results.kept import SOLVED, Result
from pitfalls.results.statistics import wilson

NEAR = 0.02
"""A model that is right so nearly 1 time in d, and has its lookups, guesses the first hop."""
NO_LOOKUPS, LOOKUPS = 0.5, 0.95
"""The lowest accuracy of a position besides the first hop, given the gold tokens before it: what says that a model has not
learned to follow edges, so that its exact match says nothing of planning; and what says that it has."""

Budgets = dict[int, list[Result]]
"""The seeds of one objective on one graph, by the most samples that they may see."""


def at_a_glance(results: Sequence[Result]) -> Table:
    """A row per objective, a column per graph, what solves most first."""
    cells = _by_budget(results)
    graphs = sorted({star for star, _ in cells})
    usual = Counter(run.budget for run in results).most_common(1)[0][0] if results else 0

    def place(name: str) -> tuple[float, float]:
        of_name = [budgets for (_, other), budgets in cells.items() if other == name]
        with_usual = sum(_share_solved(budgets.get(usual, [])) for budgets in of_name)
        return -with_usual, -sum(max(map(_share_solved, budgets.values())) for budgets in of_name)

    names = sorted(dict.fromkeys(name for _, name in cells), key=place)
    rows = tuple((name, *(_outcomes(cells.get((graph, name), {}), usual) for graph in graphs)) for name in names)
    header = ("objective", *(f"G({d},{length}), N={n}" for d, length, n in graphs))
    note = (
        f"Seeds that solve it (exact match of at least {SOLVED} on all test graphs) of those that were trained, with at most "
        f"{_k(usual)} samples; where more were tried, their number stands before what those runs did. Where no seed solves it, "
        f"what the best one does instead: 1/d (it guesses the first hop: exact match within {NEAR:g} of 1/d, every other "
        f"position at least {LOOKUPS:g} given the gold tokens before it), no lookups (some other position below "
        f"{NO_LOOKUPS:g}), or else its exact match, rounded down: the lookups are there in part, or the first hop is. Empty: not "
        "trained. "
        f"First comes what solves most with {_k(usual)}, in shares of seeds added up over graphs."
    )
    return Table("At a glance", header, rows, note)


def solved(results: Sequence[Result]) -> Table:
    """One row per graph, objective and budget that was enough for some seed."""
    rows = []
    for (_, name), budgets in sorted(_by_budget(results).items()):
        for budget, runs in sorted(budgets.items()):
            if not (done := [run for run in runs if run.solved]):
                continue
            low, high = wilson(len(done), len(runs))
            within = ", ".join(
                f"seed {run.record['seed']}: {(run.samples_to_solve or run.record['samples_seen']) / 1000:.0f}" for run in done
            )
            counts = f"{len(done)} of {len(runs)}"
            rows.append((runs[0].graph_text, name, f"{budget / 1000:,.0f}", counts, f"{low:.2f} to {high:.2f}", within))
    note = (
        f"Seeds with an exact match of at least {SOLVED} on all test graphs, of those that were trained with this many samples "
        "at most; the 95 % Wilson interval of that share, over seeds and not test graphs; and the samples at the first "
        "evaluation in training (500 test graphs) that says so. Longer runs begin again, with a schedule of their own."
    )
    header = ("graph, N", "objective", "samples at most (k)", "seeds that solve it", "their share", "samples to 95 % (k)")
    return Table("Who solves what", header, tuple(rows), note)


def _by_budget(results: Sequence[Result]) -> dict[tuple[tuple[int, int, int], str], Budgets]:
    """By graph and objective."""
    cells: dict[tuple[tuple[int, int, int], str], Budgets] = {}
    for run in results:
        cells.setdefault((run.star, run.method), {}).setdefault(run.budget, []).append(run)
    return cells


def _share_solved(runs: Sequence[Result]) -> float:
    return sum(run.solved for run in runs) / max(len(runs), 1)


def _k(n_samples: int) -> str:
    return f"{n_samples / 1000:,.0f} k"


def _outcomes(budgets: Budgets, usual: int) -> str:
    """Of one objective on one graph; only what is not the bench's own budget is named."""
    return "; ".join(_outcome(runs) if n == usual else f"{_k(n)}: {_outcome(runs)}" for n, runs in sorted(budgets.items()))


def _outcome(runs: Sequence[Result]) -> str:
    if n := sum(run.solved for run in runs):
        return f"{n} of {len(runs)}"
    best = max(runs, key=lambda run: run.exact_match)
    if lacks_lookups([best]):
        return "no lookups"
    guesses = abs(best.exact_match - best.chance) <= NEAR and (best.other_positions or 0.0) >= LOOKUPS
    return "1/d" if guesses else f"{math.floor(100 * best.exact_match + 1e-9) / 100:.2f}"


def lacks_lookups(runs: Sequence[Result]) -> bool:
    """Whether most seeds have not learned to follow edges."""
    missing = sum(run.other_positions is not None and run.other_positions < NO_LOOKUPS for run in runs)
    return 2 * missing > len(runs)
