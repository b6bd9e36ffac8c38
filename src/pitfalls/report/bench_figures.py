"""The figures of a set with many objectives: a panel per objective, and tables in shades of grey."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pitfalls.records import graph_name
from pitfalls.report.figures import by_label, entitle, exact_match_curve, graph_of, graphs_of, save, style
from pitfalls.report.solved import objective_names
from pitfalls.results import Result, forced

N_COLUMNS = 4
N_POINTS = 50
"""Of a curve, at most."""
DARK = 0.6
"""From this shade on, numbers are white."""


def draw(results: Sequence[Result], title: str, path: Path) -> None:
    """Exact match against samples, a panel per objective with a line per graph and run, longer ones too, and each graph's 1/d.

    A graph with more node values than in another cell has its colour and dash, thin and with hollow markers.
    """
    panels, graphs = by_objective(results), graphs_of(results)
    stars = list(dict.fromkeys(graph_name(dict(run.config)) for run in results))
    smallest = {star: min(_n_values(run) for run in results if graph_name(dict(run.config)) == star) for star in stars}
    n_rows = -(-len(panels) // N_COLUMNS)
    figure, axes = plt.subplots(n_rows, N_COLUMNS, figsize=(3.4 * N_COLUMNS, 2.3 * n_rows + 0.6), sharex=True, sharey=True,
                                squeeze=False, layout="constrained")  # fmt: skip
    handles: dict[str, Line2D] = {}
    for i, (panel, (name, runs)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        for run in runs:
            star = graph_name(dict(run.config))
            colour, dash, marker, _ = style(stars.index(star))
            small = _n_values(run) == smallest[star]
            x, y = thinned(*exact_match_curve(run))
            (line,) = panel.plot(x, y, color=colour, linestyle=dash, marker=marker, markevery=max(1, len(x) // 3), markersize=4,
                                 markerfacecolor=colour if small else "white", linewidth=1.4 if small else 0.8)  # fmt: skip
            handles.setdefault(graph_of(run), line)
        for star, chance in {graph_name(dict(run.config)): run.chance for run in runs}.items():
            colour, *_ = style(stars.index(star))
            panel.axhline(chance, color=colour, linewidth=0.8, linestyle=(0, (1, 2)))
        panel.set_title(name, fontsize=9)
        panel.set(ylim=(-0.03, 1.03), xscale="log")
        panel.minorticks_off()
        if i + N_COLUMNS >= len(panels):
            panel.set_xlabel("training samples (thousands)")
            panel.tick_params(labelbottom=True)
    for panel in axes.flat[len(panels):]:
        panel.set_axis_off()
    figure.supylabel("exact match on test graphs", fontsize=9)
    figure.legend([handles[graph] for graph in graphs], graphs, loc="outside lower center", ncols=4, frameon=False)
    entitle(figure, f"{title}. Dotted: 1/d")
    save(figure, path)


def by_objective(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Runs of the same objective and parameters, whatever graph and number of samples."""
    panels: dict[str, list[Result]] = {}
    for run, name in zip(results, objective_names([run.config["objective"] for run in results]), strict=True):
        panels.setdefault(name, []).append(run)
    return panels


def _n_values(run: Result) -> int:
    return run.config["task"]["n_values"]


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Of a long curve every k-th point, and the last; what came before training has no place on a scale of powers."""
    x, y = x[1:], y[1:]
    every = -(-len(x) // N_POINTS) or 1
    first = (len(x) - 1) % every
    return x[first::every], y[first::every]


def draw_positions(results: Sequence[Result], title: str, path: Path) -> None:
    """Accuracy of every target position given the gold tokens before it, when training has ended."""
    _draw_shades(results, f"{title}: accuracy given the gold tokens before", path, lambda run: forced(run.test))


def draw_entropy(results: Sequence[Result], title: str, path: Path) -> None:
    """Mean entropy of the prediction at every target position, given the gold tokens before it, in nats."""
    _draw_shades(results, f"{title}: entropy given the gold tokens before, nats", path, lambda run: run.entropies)


def _draw_shades(
    results: Sequence[Result], title: str, path: Path, values: Callable[[Result], Sequence[float | None] | None]
) -> None:
    """A table per graph, with a row per objective and a column per target position."""
    graphs, labels = graphs_of(results), [label for label, _ in by_label(results)]
    size = (3.0 * len(graphs) + 1.8, 0.27 * len(labels) + 1.3)
    figure, axes = plt.subplots(1, len(graphs), figsize=size, sharey=True, squeeze=False, layout="constrained")
    tables = {}
    for graph in graphs:
        of_graph = dict(by_label([run for run in results if graph_of(run) == graph]))
        tables[graph] = [_mean([values(run) for run in of_graph.get(label, [])]) for label in labels]
    largest = max((value for table in tables.values() for row in table for value in row if value is not None), default=1.0)
    for panel, graph in zip(axes[0], graphs, strict=True):
        positions = next(run.positions for run in results if graph_of(run) == graph)
        _shade(panel, tables[graph], len(positions), largest or 1.0)
        panel.set_xticks(range(len(positions)), positions, fontsize=8)
        panel.set_yticks(range(len(labels)), labels)
        panel.set_title(graph, fontsize=9)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    entitle(figure, f"{title}, mean of the seeds")
    save(figure, path)


def _mean(rows: Sequence[Sequence[float | None] | None]) -> list[float | None]:
    """Position by position; None where a run has no value."""
    known = [row for row in rows if row is not None]
    columns = zip(*known, strict=True)
    return [None if None in column else sum(v for v in column if v is not None) / len(column) for column in columns]


def _shade(panel: Axes, table: Sequence[Sequence[float | None]], n_positions: int, largest: float) -> None:
    """White is 0, black the largest value of the figure; a dash is a position without a value."""
    shades = [[0.0 if value is None else value for value in row] or [0.0] * n_positions for row in table]
    panel.imshow(shades, cmap="Greys", vmin=0, vmax=largest, aspect="auto")
    for y, row in enumerate(table):
        for x in range(n_positions):
            value = row[x] if row else None
            colour = "white" if value is not None and value > DARK * largest else "black"
            panel.text(x, y, "-" if value is None else f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
