"""The figures of a set with many objectives: a panel per objective, and tables in shades of grey."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pitfalls.report.figures import by_label, exact_match_curve, graph_of, graphs_of
from pitfalls.results.kept import Result, forced
from pitfalls.results.plotting import entitle, house_style, save, style, subplots
from pitfalls.runs.run_folder import graph_name

N_COLUMNS = N_TABLES = 4
"""Beside each other: panels of the curves, tables of the positions."""
SPACING = 1.05
"""Of neighbouring points of a curve, at least: samples over samples, since the scale is one of powers."""
DARK = 0.6
"""From this shade on, numbers are white."""


@house_style
def draw(results: Sequence[Result], title: str, path: Path) -> None:
    """Exact match against samples, a panel per objective with a line per graph and run, longer ones too, and each graph's 1/d.

    A graph with more node values than in another cell has its colour and dash, thin and with hollow markers.
    """
    panels, graphs = by_objective(results), graphs_of(results)
    stars = list(dict.fromkeys(graph_name(dict(run.config)) for run in results))
    smallest = {star: min(_n_values(run) for run in results if graph_name(dict(run.config)) == star) for star in stars}
    n_rows = -(-len(panels) // N_COLUMNS)
    figure, axes = subplots(
        n_rows,
        N_COLUMNS,
        figsize=(3.4 * N_COLUMNS, 2.3 * n_rows + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    handles: dict[str, Line2D] = {}
    for i, (panel, (name, runs)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        for run in runs:
            star = graph_name(dict(run.config))
            colour, dash, marker, _ = style(stars.index(star))
            small = _n_values(run) == smallest[star]
            x, y = thinned(*exact_match_curve(run))
            (line,) = panel.plot(
                x,
                y,
                color=colour,
                linestyle=dash,
                marker=marker,
                markevery=max(1, len(x) // 3),
                markersize=4,
                markerfacecolor=colour if small else "white",
                linewidth=1.4 if small else 0.8,
            )
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
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    figure.supylabel("exact match on test graphs", fontsize=9)
    figure.legend([handles[graph] for graph in graphs], graphs, loc="outside lower center", ncols=4, frameon=False)
    entitle(figure, f"{title}. Dotted: 1/d")
    save(figure, path)


def by_objective(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Runs of the same objective and parameters, whatever graph and number of samples."""
    panels: dict[str, list[Result]] = {}
    for run in results:
        panels.setdefault(run.method, []).append(run)
    return panels


def _n_values(run: Result) -> int:
    return run.config["task"]["n_values"]


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Of a curve the last point, and of those before it what can be told apart; what came before training has no place there."""
    kept: list[int] = []
    for i in range(len(x) - 1, 0, -1):
        if not kept or SPACING * x[i] <= x[kept[-1]]:
            kept.append(i)
    return [x[i] for i in reversed(kept)], [y[i] for i in reversed(kept)]


@house_style
def draw_positions(results: Sequence[Result], title: str, path: Path) -> None:
    """Accuracy of every target position given the gold tokens before it, when training has ended."""
    _draw_shades(results, f"{title}: accuracy given the gold tokens before", path, lambda run: forced(run.test))


@house_style
def draw_entropy(results: Sequence[Result], title: str, path: Path) -> None:
    """Mean entropy of the prediction at every target position, given the gold tokens before it, in nats."""
    _draw_shades(results, f"{title}: entropy given the gold tokens before, nats", path, lambda run: run.entropies)


def _draw_shades(
    results: Sequence[Result], title: str, path: Path, values: Callable[[Result], Sequence[float | None] | None]
) -> None:
    """A table per graph, with a row per label and a column per target position, of the median seed; empty: not trained."""
    graphs = sorted(graphs_of(results), key=lambda graph: next(run.star for run in results if graph_of(run) == graph))
    lines = [graphs[i : i + N_TABLES] for i in range(0, len(graphs), N_TABLES)]
    labels = [[label for label, runs in by_label(results) if any(graph_of(run) in line for run in runs)] for line in lines]
    heights = [0.27 * len(names) + 0.8 for names in labels]
    figure, axes = subplots(
        len(lines),
        N_TABLES,
        figsize=(2.4 * N_TABLES + 2.4, sum(heights) + 0.5),
        squeeze=False,
        height_ratios=heights,
    )
    tables = {}
    for graph in graphs:
        runs_of = dict(by_label([run for run in results if graph_of(run) == graph]))
        tables[graph] = {label: list(values(median_seed(runs)) or []) for label, runs in runs_of.items()}
    numbers = (value for table in tables.values() for row in table.values() for value in row if value is not None)
    largest = max(numbers, default=1.0) or 1.0
    for panels, line, names in zip(axes, lines, labels, strict=True):
        for panel, graph in zip(panels, line, strict=False):
            positions = next(run.positions for run in results if graph_of(run) == graph)
            _shade(panel, [tables[graph].get(label) for label in names], len(positions), largest)
            panel.set_xticks(range(len(positions)), positions, fontsize=8)
            panel.set_yticks(range(len(names)), names if panel is panels[0] else [])
            panel.set_title(graph, fontsize=9)
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
        for panel in panels[len(line) :]:
            panel.set_axis_off()
    entitle(figure, f"{title}. The median seed; a dash: not answered; empty: not trained")
    save(figure, path)


def median_seed(runs: Sequence[Result]) -> Result:
    """By exact match, the lower one of two: a mean over seeds that solve a graph and seeds that do not is what no model does."""
    return sorted(runs, key=lambda run: run.exact_match)[(len(runs) - 1) // 2]


def _shade(panel: Axes, table: Sequence[Sequence[float | None] | None], n_positions: int, largest: float) -> None:
    """White is 0, black the largest value of the figure; a dash is a position without a value; None: a row that is left empty."""
    shades = [[value or 0.0 for value in row or []] or [0.0] * n_positions for row in table]
    panel.imshow(shades, cmap="Greys", vmin=0, vmax=largest, aspect="auto")
    for y, row in enumerate(table):
        for x, value in enumerate([] if row is None else row or [None] * n_positions):
            colour = "white" if value is not None and value > DARK * largest else "black"
            panel.text(x, y, "-" if value is None else f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
