"""The bench of objectives: the leaderboard with one row per graph and objective, and the results of other decodings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from msgspec import UNSET

from pitfalls.results.formats import Table
from pitfalls.results.groups import by_seed, grouped, median_exact_match, n_solved, thousands
from pitfalls.results.kept import SOLVED, Result

HEADER = (
    "graph, N",
    "objective",
    "samples at most (k)",
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
SHOWN = (
    "graph, N",
    "objective",
    "samples at most (k)",
    "exact match",
    "solved",
    "samples to 95 % (k)",
    "FLOP per sample",
    "step time",
)
NOTE = (
    "Sorted by graph, then by the most samples that a run may see, then by what most seeds solved. All objectives have one "
    "trunk, and one recipe per graph (conf/experiment/objectives.yaml). A run stops early once it is nearly always right. Values "
    f"are by seed. Solved: exact match of at least {SOLVED} on {{n}} test graphs. Samples to 95 %: at the first evaluation in "
    "training with such an exact match. FLOP per sample and step time are relative to next token on that graph. FLOP count "
    "forward and backward, heads and second encoders included, on samples that are read one by one. Step times are measured "
    "side by side{noise}. There the edges of a graph are read once for all its goals, where the method can. The CSV has more: "
    "horizon, TFLOP, parameters, trunk tokens, arm following and broken walks."
)


def ranked(results: Sequence[Result]) -> list[list[Result]]:
    """Return the seeds of each cell, sorted by graph and budget, then by the number of solved seeds, then by speed."""

    def place(runs: Sequence[Result]) -> tuple[Any, ...]:
        share = n_solved(runs) / len(runs)
        quickest = median(map(samples_to_solve, runs))
        return runs[0].star, runs[0].budget, -share, quickest, -median_exact_match(runs), runs[0].cell.label

    return sorted(grouped(results, lambda run: run.cell.name).values(), key=place)


def samples_to_solve(run: Result) -> float:
    """Return the number of samples to 95 % exact match. It is infinite if the run never reached that."""
    return float("inf") if run.samples_to_solve is None else run.samples_to_solve


def leaderboard(results: Sequence[Result], step_times: Mapping[str, float]) -> Table:
    """Return the leaderboard, with one row per graph and objective.

    Args:
        results: the runs of the set, any seeds.
        step_times: seconds per step relative to next token, by ``<objective> <graph>, <N>``. Missing times are shown as a dash.
    """
    cells = ranked(results)
    control = {runs[0].star: runs[0] for runs in cells if runs[0].objective == "next_token"}
    rows = tuple(_row(runs, control.get(runs[0].star), step_times) for runs in cells)
    same = sorted(time for name, time in step_times.items() if name.startswith("reversed "))
    graphs = " or ".join(sorted({f"{run.record.test.first_hop.n:,}" for run in results}))
    noise = f" (reversed, the same work as next token, is between {same[0]:.2f} and {same[-1]:.2f})" if same else ""
    return Table("Objectives", HEADER, rows, f"{NOTE.format(n=graphs, noise=noise)} {_precisions(results)}", SHOWN)


def _precisions(results: Sequence[Result]) -> str:
    found = Counter(run.config.precision for run in results)
    return f"Precision as the machine has it: {', '.join(f'{n} runs in {name}' for name, n in sorted(found.items()))}."


def _row(runs: Sequence[Result], control: Result | None, step_times: Mapping[str, float]) -> tuple[str, ...]:
    first = runs[0]
    time = None if first.own_settings else step_times.get(f"{first.objective} {first.graph_text}")
    arms = [run.record.probes.arm_following for run in runs]
    added, horizon = first.record.n_objective_parameters, first.record.horizon
    return (
        first.graph_text,
        first.method,
        thousands(first.budget),
        "-" if horizon is UNSET else str(horizon),
        by_seed([run.exact_match for run in runs]),
        f"{n_solved(runs)} of {len(runs)}",
        by_seed([None if run.samples_to_solve is None else run.samples_to_solve / 1000 for run in runs], 0),
        by_seed([_tera(run) for run in runs], 1),
        f"{0 if added is UNSET else added:,}",
        _relative(first, control, "trunk_tokens"),
        _relative(first, control, "flops"),
        "-" if time is None else f"{time:.2f}",
        by_seed([None if arm is None else arm.follows.share for arm in arms]),
        by_seed([run.record.test.broken_walk.share for run in runs]),
    )


def _relative(run: Result, control: Result | None, what: str) -> str:
    """Return the cost per sample relative to that of next token."""
    if control is None or run.record.cost is UNSET or control.record.cost is UNSET:
        return "-"
    return f"{getattr(run.record.cost, what) / getattr(control.record.cost, what):.2f}"


def _tera(run: Result) -> float | None:
    n, flops = run.samples_to_solve, run.flops
    return None if n is None or flops is None else n * flops / 1e12


def decodings(results: Sequence[Result]) -> Table:
    """Return a table with one row per run that has results of other decodings (probe `other_decodings`)."""
    rows = []
    for run in (run for runs in ranked(results) for run in runs):
        if others := run.record.probes.other_decodings:
            asked = ", ".join(f"{name.replace('_', ' ')} {count.share:.3f}" for name, count in others.items())
            own = f"{run.record.test.decoder.replace('_', ' ')} {run.exact_match:.3f}"
            rows.append((run.graph_text, run.method, str(run.seed), own, asked))
    note = (
        "Exact match by the method's own inference on all test graphs, which is its score, and by other procedures on the probed "
        "graphs. Goal first writes the path backwards, which is the reversed task. Blockwise keeps what the heads draft."
    )
    return Table("Asked in other ways", ("graph, N", "objective", "seed", "its own", "others"), tuple(rows), note)
