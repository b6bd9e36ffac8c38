"""The lookup race: samples, time and operations until the edge lookups are learned, and from there to the solved task."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from pitfalls.results.formats import Table
from pitfalls.results.groups import grouped, thousands
from pitfalls.results.kept import LOOKUPS, SOLVED, Result
from pitfalls.results.plotting import entitle, house_style, style, subplots

NAME = "race"
"""The set of the race."""
SOONER = "sooner"
"""The set with further runs of the recipe that won. Its preset has the same name."""
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}
TITLE = "Samples until the edge lookups are learned"


def tables(results: Sequence[Result]) -> dict[str, Table]:
    """Return the table of the race and that of what comes after it, from the runs of both sets."""
    return {"lookups": lookups(racers(results)), "after": after(results)}


def racers(results: Sequence[Result]) -> list[Result]:
    """Return the runs that stop when the lookups are learned."""
    return [run for run in results if run.config.training.get("stop_metric") == "other_positions"]


def lookups(results: Sequence[Result]) -> Table:
    """Return a table with one row per graph, trunk and optimizer, the soonest first."""
    rows = []
    for _, of_graph in sorted(grouped(results, lambda run: run.star).items()):
        cells = grouped(of_graph, lambda run: run.cell.name).values()
        for runs in sorted(cells, key=_place):
            costs = [None if run.flops is None else run.flops * run.record.samples_seen / 1e12 for run in runs]
            rows.append(
                (
                    runs[0].graph_text,
                    runs[0].model,
                    _optimizer(runs[0]),
                    str(runs[0].config.training["batch_size"]),
                    ", ".join(map(_samples, runs)),
                    ", ".join(f"{run.record.cpu_s:.0f}" for run in runs),
                    ", ".join("-" if cost is None else f"{cost:.1f}" for cost in costs),
                )
            )
    note = (
        f"Next token from scratch, until every position but the first hop is at least {LOOKUPS:g} on 200 test graphs, given the "
        "gold tokens before it. Each seed has a value. A > means that the lookups were not learned within so many samples. CPU "
        "seconds are of one thread, with other work on the machine. TFLOP are counted, not timed. The batch of 120 is the "
        "recipe of the bench."
    )
    header = ("graph, N", "trunk", "optimizer", "batch", "thousand samples", "CPU s", "TFLOP")
    return Table(TITLE, header, tuple(rows), note)


def after(results: Sequence[Result]) -> Table:
    """Return a table with one row per graph and objective that was trained to solve, with the recipe that won."""
    runs_of = grouped([run for run in results if run.cell.experiment == SOONER], lambda run: (run.star, run.method))
    rows = tuple(
        (runs[0].graph_text, name, *(", ".join(map(text, runs)) for text in (_samples, _solved)))
        for (_, name), runs in sorted(runs_of.items())
    )
    note = (
        f"Thousands of samples by seed. Lookups: the first evaluation with every position but the first hop at {LOOKUPS:g}. "
        f"Solved: the first with an exact match of {SOLVED:g}. A > means not within so many samples."
    )
    header = ("graph, N", "objective", "lookups", "solved")
    return Table("Samples to the lookups, and to the solved task", header, rows, note)


def _optimizer(run: Result) -> str:
    name = run.config.optimizer_name
    return OPTIMIZERS.get(name, name)


def _racer(run: Result) -> str:
    """Return trunk, optimizer and batch."""
    return f"{run.model}, {_optimizer(run)}, batch {run.config.training['batch_size']}"


def _place(runs: Sequence[Result]) -> float:
    """Return a number by which the soonest come first: mean samples to the lookups. Seeds without them stand for a lot."""
    return sum(10 * run.budget if run.samples_to_lookups is None else run.samples_to_lookups for run in runs) / len(runs)


def _samples(run: Result) -> str:
    found = run.samples_to_lookups
    return f">{thousands(run.record.samples_seen)}" if found is None else thousands(found)


def _solved(run: Result) -> str:
    found = run.samples_to_solve
    return f">{thousands(run.record.samples_seen)}" if found is None else thousands(found)


@house_style
def draw(results: Sequence[Result]) -> Figure | None:
    """Return a figure with one panel per graph: a dot per seed, at its number of samples. A cross marks what was too few."""
    if not (runs := racers(results)):
        return None
    graphs = grouped(sorted(runs, key=lambda run: run.star), lambda run: run.graph_label)
    heights = [len({run.cell.name for run in of_graph}) for of_graph in graphs.values()]
    size = (6.4, 1.4 + 0.27 * sum(heights) + 0.5 * len(graphs))
    figure, axes = subplots(len(graphs), 1, figsize=size, height_ratios=heights, squeeze=False, sharex=True)
    for panel, (graph, of_graph) in zip(axes[:, 0], graphs.items(), strict=True):
        cells = grouped(of_graph, _racer)
        order = sorted(cells, key=lambda name: _place(cells[name]), reverse=True)
        for height, name in enumerate(order):
            for run in cells[name]:
                found = run.samples_to_lookups
                colour = style(0 if run.config.optimizer_name == "adamw" else 1)[0]
                x = (run.record.samples_seen if found is None else found) / 1000
                panel.plot([x], [height], "x" if found is None else "o", color=colour, markersize=6, alpha=0.8)
        panel.set_yticks(range(len(order)), order)
        panel.set_ylim(-0.6, len(order) - 0.4)
        panel.set_title(graph, loc="left", fontsize=9)
        panel.grid(axis="x", linewidth=0.4)
    axes[-1, 0].set(xscale="log", xlabel="training samples (thousands); x: not learned within them")
    ticks = [2, 5, 10, 20, 50, 100, 200]
    axes[-1, 0].set_xticks(ticks, map(str, ticks))
    axes[-1, 0].minorticks_off()
    entitle(figure, TITLE)
    return figure
