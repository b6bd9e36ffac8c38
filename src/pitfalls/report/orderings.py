"""Orderings of the bench's objectives: compared with published ones, and by samples against FLOP."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from pitfalls.report.leaderboard import samples_to_solve
from pitfalls.report.published import Paper
from pitfalls.report.solved import NO_LOOKUPS, lacks_lookups
from pitfalls.results.formats import Table
from pitfalls.results.groups import grouped, median_exact_match, n_seeds, thousands
from pitfalls.results.kept import Result

CLEAR = 0.05
"""Least difference of two exact matches that counts as clear."""
PAIRS = ("alike here", "otherwise here", "not ordered here")
AGREEMENT_HEADER = (
    "graph, N",
    "source",
    "samples at most (k)",
    "pairs ordered there",
    *PAIRS,
    "published / ours",
    *(f"pairs {kind}" for kind in PAIRS),
)
COST_HEADER = (
    "graph, N",
    "objective",
    "seeds",
    "samples to 95 % (k)",
    "rank",
    "TFLOP to 95 %",
    "rank by TFLOP",
    "changes places with",
)


def agreement(papers: Sequence[Paper], results: Sequence[Result]) -> Table:
    """Return a table that compares our ordering of methods with published ones, by graph and budget."""
    rows = []
    presets = [run for run in results if not run.own_settings]
    for paper in papers:
        for row in paper.rows:
            for budget, mine in _by_budget(presets, row.degree, row.path_length).items():
                both = {
                    ours: (row.numbers[theirs] / 100, mine[ours])
                    for theirs, ours in paper.ours.items()
                    if theirs in row.numbers and ours in mine
                }
                if len(both) > 1:
                    graph = next(iter(mine.values()))[0].graph_text
                    rows.append((graph, paper.short, thousands(budget), *_compare(both, 1 / row.degree)))
    note = (
        "Pairs of methods, all of ours with this many samples at most (the smallest N; median over seeds). A pair is ordered "
        f"where both differ by more than {CLEAR:g}. Some numbers order nothing. Ours is undertrained: some position besides "
        f"the first hop is below {NO_LOOKUPS:g} given the gold tokens before it, in most seeds. Theirs is below half of 1/d. "
        "Not ordered here: pairs that the source orders and we do not, since one of ours is undertrained or both are alike. "
        "The CSV names the pairs and has both numbers of each method. Trunk, data and horizons differ from ours: see the "
        "published numbers."
    )
    return Table("Orderings beside published ones", AGREEMENT_HEADER, tuple(rows), note, AGREEMENT_HEADER[:7])


def _by_budget(presets: Sequence[Result], degree: int, path_length: int) -> dict[int, dict[str, list[Result]]]:
    """Return our runs on the graph of this degree and length with the fewest node values, by budget and objective."""
    same = sorted((run for run in presets if run.star[:2] == (degree, path_length)), key=lambda run: run.budget)
    smallest = [run for run in same if run.star == min(other.star for other in same)]
    budgets = grouped(smallest, lambda run: run.budget)
    return {budget: grouped(runs, lambda run: run.objective) for budget, runs in budgets.items()}


def _compare(both: Mapping[str, tuple[float, Sequence[Result]]], chance: float) -> tuple[str, ...]:
    """Return the last cells of a row: pairs of the source, pairs alike, otherwise and unclear here, then all in words."""
    ordered: dict[str, list[str]] = {kind: [] for kind in PAIRS}
    theirs = {name: published for name, (published, _) in both.items() if published >= chance / 2}
    ours = {name: median_exact_match(runs) for name, (_, runs) in both.items() if not lacks_lookups(runs)}
    for a, b in itertools.combinations(theirs, 2):
        there = theirs[a] - theirs[b]
        if abs(there) <= CLEAR:
            continue
        here = ours[a] - ours[b] if a in ours and b in ours else 0.0
        kind = PAIRS[2] if abs(here) <= CLEAR else PAIRS[0] if there * here > 0 else PAIRS[1]
        ordered[kind].append(f"{a} > {b}" if there > 0 else f"{b} > {a}")
    numbers = []
    for name, (published, runs) in both.items():
        told = " (undertrained there)" * (name not in theirs) + " (undertrained)" * (name not in ours)
        numbers.append(f"{name} {published:.3f} / {median_exact_match(runs):.3f} ({len(runs)}){told}")
    counts = [len(ordered[kind]) for kind in PAIRS]
    words = ("; ".join(ordered[kind]) or "none" for kind in PAIRS)
    return str(sum(counts)), *map(str, counts), ", ".join(numbers), *words


def by_cost(results: Sequence[Result]) -> Table:
    """Return the methods that solve a graph, ranked by samples and by FLOP to 95 %, and the pairs that change their order."""
    graphs = sorted(grouped(results, lambda run: run.star).items())
    rows = [row for _, runs in graphs for row in _costs(runs)]
    some = [f"{runs[0].graph_label}: {', '.join(names)}" for _, runs in graphs if (names := _solved_by_some(runs))]
    note = (
        "Medians over seeds; each seed counts with its cheapest run, longer ones included. A seed that never got there counts as "
        "infinitely many samples. FLOP are counted on samples that are read one by one. Training reads the edges of a graph once "
        "for all its goals where a method can. So next token and what stands on it are cheaper than here; see the step times in "
        f"the leaderboard. Solved by some seed, but not by the median one: {'; '.join(some) or 'none'}."
    )
    return Table("Equal samples against equal FLOP", COST_HEADER, tuple(rows), note)


def _solved_by_some(runs: Sequence[Result]) -> list[str]:
    """Return the methods that solve a graph with some seeds, but not with the median one."""
    methods = grouped(runs, lambda run: run.method)
    return [
        name
        for name, seeds in methods.items()
        if _median_samples(seeds) == float("inf") and any(run.samples_to_solve is not None for run in seeds)
    ]


def _costs(runs: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """Return the rows of one graph, the fewest samples first."""
    costs: dict[str, tuple[float, float]] = {}
    methods = grouped(runs, lambda run: run.method)
    for name, seeds in methods.items():
        n, flops = _median_samples(seeds), seeds[0].flops
        if n < float("inf") and flops is not None:
            costs[name] = n / 1e3, n * flops / 1e12
    ranks = [sorted(costs, key=lambda name: costs[name][i]) for i in (0, 1)]
    for name in ranks[0]:
        swapped = [other for other in ranks[0] if (costs[name][0] - costs[other][0]) * (costs[name][1] - costs[other][1]) < 0]
        samples, tera = costs[name]
        places = [str(order.index(name) + 1) for order in ranks]
        seeds_text = str(n_seeds(methods[name]))
        graph = methods[name][0].graph_text
        yield graph, name, seeds_text, f"{samples:,.0f}", places[0], f"{tera:,.1f}", places[1], ", ".join(swapped)


def _median_samples(runs: Sequence[Result]) -> float:
    """Return the samples to 95 % of the median seed. Each seed counts with its cheapest run."""
    return median(min(map(samples_to_solve, of_seed)) for of_seed in grouped(runs, lambda run: run.seed).values())
