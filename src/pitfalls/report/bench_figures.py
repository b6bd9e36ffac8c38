"""The figures of a set with many objectives: one panel per objective, and tables in shades of grey."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pitfalls.report.figures import by_label, exact_match_curve
from pitfalls.results.groups import grouped, median_run
from pitfalls.results.kept import Result, Star
from pitfalls.results.plotting import entitle, house_style, style, subplots

N_COLUMNS = N_TABLES = 4
"""Number of panels in a row, for curves and for tables."""
SPACING = 1.05
"""Least ratio of samples between neighbouring points of a curve. The axis is logarithmic."""
DARK = 0.6
"""Shade from which on numbers are white."""


@house_style
def draw(results: Sequence[Result], title: str) -> Figure:
    """Return a figure of exact match against samples: one panel per objective, one line per run, and each 1/d.

    The same graph with more node values has the same colour and dash, but thin lines and hollow markers.
    """
    panels, graphs = grouped(results, lambda run: run.method), list(grouped(results, lambda run: run.graph_label))
    stars = list(dict.fromkeys(run.config.graph for run in results))
    smallest = {star: min(run.config.task.n_values for run in results if run.config.graph == star) for star in stars}
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
            star = run.config.graph
            colour, dash, marker, _ = style(stars.index(star))
            small = run.config.task.n_values == smallest[star]
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
            handles.setdefault(run.graph_label, line)
        for star, chance in {run.config.graph: run.chance for run in runs}.items():
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
    return figure


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Return a curve without points too close to their neighbours, and without the point at 0 samples, which has no logarithm."""
    kept: list[int] = []
    for i in range(len(x) - 1, 0, -1):
        if not kept or SPACING * x[i] <= x[kept[-1]]:
            kept.append(i)
    return [x[i] for i in reversed(kept)], [y[i] for i in reversed(kept)]


@house_style
def draw_positions(results: Sequence[Result], title: str) -> Figure:
    """Return a figure of the accuracy of every target position under teacher forcing, after training."""
    return _draw_shades(results, f"{title}: accuracy given the gold tokens before", lambda run: run.record.test.forced)


@house_style
def draw_entropy(results: Sequence[Result], title: str) -> Figure:
    """Return a figure of the mean entropy in nats at every target position under teacher forcing."""
    return _draw_shades(results, f"{title}: entropy given the gold tokens before, nats", lambda run: run.entropies)


def _draw_shades(results: Sequence[Result], title: str, values: Callable[[Result], Sequence[float | None] | None]) -> Figure:
    """Return a figure with one table per graph, for the median seed: one row per label, one column per target position."""
    by_graph = {graph: by_label(runs) for graph, runs in grouped(sorted(results, key=_star), lambda run: run.graph_label).items()}
    tables = {
        graph: {label: list(values(median_run(runs)) or []) for label, runs in labels.items()}
        for graph, labels in by_graph.items()
    }
    positions = {graph: next(iter(labels.values()))[0].positions for graph, labels in by_graph.items()}
    graphs = list(tables)
    lines = [graphs[i : i + N_TABLES] for i in range(0, len(graphs), N_TABLES)]
    labels = [[label for label in by_label(results) if any(label in tables[graph] for graph in line)] for line in lines]
    heights = [0.27 * len(names) + 0.8 for names in labels]
    size = (2.4 * N_TABLES + 2.4, sum(heights) + 0.5)
    figure, axes = subplots(len(lines), N_TABLES, figsize=size, squeeze=False, height_ratios=heights)
    numbers = (value for table in tables.values() for row in table.values() for value in row if value is not None)
    largest = max(numbers, default=1.0) or 1.0
    for panels, line, names in zip(axes, lines, labels, strict=True):
        for panel, graph in zip(panels, line, strict=False):
            _shade(panel, [tables[graph].get(label) for label in names], len(positions[graph]), largest)
            panel.set_xticks(range(len(positions[graph])), positions[graph], fontsize=8)
            panel.set_yticks(range(len(names)), names if panel is panels[0] else [])
            panel.set_title(graph, fontsize=9)
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
        for panel in panels[len(line) :]:
            panel.set_axis_off()
    entitle(figure, f"{title}. The median seed; a dash: not answered; empty: not trained")
    return figure


def _star(run: Result) -> Star:
    return run.star


def _shade(panel: Axes, table: Sequence[Sequence[float | None] | None], n_positions: int, largest: float) -> None:
    """Draw a table in shades: white is 0, black is ``largest``, a dash is a missing value. A row that is None stays empty."""
    shades = [[value or 0.0 for value in row or []] or [0.0] * n_positions for row in table]
    panel.imshow(shades, cmap="Greys", vmin=0, vmax=largest, aspect="auto")
    for y, row in enumerate(table):
        for x, value in enumerate([] if row is None else row or [None] * n_positions):
            colour = "white" if value is not None and value > DARK * largest else "black"
            panel.text(x, y, "-" if value is None else f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
