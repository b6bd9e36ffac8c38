"""The figures of a set of runs: exact match against samples with 1/d, and accuracy and entropy position by position."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from pitfalls.results.kept import Result, forced, share
from pitfalls.results.plotting import STYLES, Style, entitle, house_style, save, style, subplots
from pitfalls.runs.run_folder import graph_name

POSITION_STYLES = {"start": 0, "first hop": 1, "goal": 2}
"""The others follow."""
Cells = Sequence[tuple[str, list[Result]]]
"""Results by label."""


def crowded(results: Sequence[Result]) -> bool:
    """Whether some graph has more labels than there are styles; `bench_figures` draws these."""
    counts = Counter(graph for graph, _ in {(graph_of(result), result.cell.label) for result in results})
    return max(counts.values(), default=0) > len(STYLES)


@house_style
def draw(results: Sequence[Result], title: str, path: Path) -> None:
    """Write ``path`` (png or svg); the same results give the same bytes."""
    graphs, styles = graphs_of(results), _styles(results)
    figure, axes = subplots(2, len(graphs), figsize=(5.2 * len(graphs), 7.6), squeeze=False)
    for column, graph in enumerate(graphs):
        cells = by_label([result for result in results if graph_of(result) == graph])
        _curves(axes[0][column], cells, styles, graph)
        _positions(axes[1][column], cells, styles)
    entitle(figure, title)
    save(figure, path)


@house_style
def draw_positions(results: Sequence[Result], title: str, path: Path) -> None:
    """Accuracy of every target position over training, given the gold tokens before it: one panel per cell, its first seed."""
    shown = [r for r in _first_seeds(results) if any(v is not None for v in forced(r.test))]
    if not shown:
        return
    n_columns = min(3, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure, axes = subplots(n_rows, n_columns, figsize=(4.2 * n_columns, 2.9 * n_rows), squeeze=False)
    for panel, result in zip(axes.flat, shown, strict=False):
        rows = [row for row in result.curve if row["split"] == "test"]
        for i, name in enumerate(result.positions):
            colour, dash, marker, _ = style(POSITION_STYLES.get(name, i + 1))
            y = [forced(row["evaluation"])[i] for row in rows]
            panel.plot(
                [row["samples"] / 1000 for row in rows],
                y,
                color=colour,
                linestyle=dash,
                marker=marker,
                markevery=max(1, len(rows) // 8),
                markersize=4,
                linewidth=1.3,
                label=name,
            )
        _level(panel, result.chance, "1/d")
        panel.set(ylim=(-0.03, 1.03), xlabel="training samples (thousands)")
        panel.set_title(f"{result.cell.label}, {result.config['model']['name']}\n{graph_of(result)}", fontsize=8)
    for panel in axes.flat[len(shown) :]:
        panel.set_axis_off()
    longest = max(range(len(shown)), key=lambda i: len(shown[i].positions))
    handles, names = axes.flat[longest].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    entitle(figure, f"{title}: accuracy given the gold tokens before")
    save(figure, path)


@house_style
def draw_entropy(results: Sequence[Result], title: str, path: Path) -> None:
    """Mean entropy of the prediction at every target position, given the gold tokens before it, against ln d."""
    known = [result for result in results if result.entropies is not None]
    if not known:
        return
    graphs, styles = graphs_of(known), _styles(results)
    figure, axes = subplots(1, len(graphs), figsize=(max(6.4, 4.6 * len(graphs)), 4.6), squeeze=False)
    for panel, graph in zip(axes[0], graphs, strict=True):
        cells = by_label([result for result in known if graph_of(result) == graph])
        width = 0.8 / len(cells)
        for i, (label, seeds) in enumerate(cells):
            colour, _, _, hatch = styles[label]
            heights = [sum(column) / len(column) for column in zip(*(r.entropies or [] for r in seeds), strict=True)]
            places = [p + (i - (len(cells) - 1) / 2) * width for p in range(len(heights))]
            panel.bar(places, heights, width * 0.92, color=colour, edgecolor="black", linewidth=0.4, hatch=hatch, label=label)
        first = cells[0][1][0]
        _level(panel, math.log(first.degree), "ln d")
        panel.set_xticks(range(len(first.positions)), first.positions)
        panel.set(title=graph, ylabel="entropy, nats", xlabel="target position")
        _legend_below(panel)
    entitle(figure, f"{title}: uncertainty, mean of the seeds")
    save(figure, path)


def _first_seeds(results: Sequence[Result]) -> list[Result]:
    """The first seed of every cell."""
    return list({result.cell.name: result for result in reversed(results)}.values())[::-1]


def graph_of(result: Result) -> str:
    """As panels name it."""
    return f"{graph_name(dict(result.config))}, N={result.config['task']['n_values']}"


def graphs_of(results: Sequence[Result]) -> list[str]:
    """In the order of the set."""
    return list(dict.fromkeys(graph_of(result) for result in results))


def by_label(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Results by label."""
    labels = dict.fromkeys(result.cell.label for result in results)
    return [(label, [r for r in results if r.cell.label == label]) for label in labels]


def _styles(results: Sequence[Result]) -> dict[str, Style]:
    """One style per label, the same in every panel of a figure."""
    return {label: style(i) for i, label in enumerate(dict.fromkeys(result.cell.label for result in results))}


def _legend_below(axes: Axes) -> None:
    """Out of the way of every curve."""
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1.0)


def _level(axes: Axes, height: float, name: str) -> None:
    """A dotted line, named to the right of the panel, where no curve runs."""
    axes.axhline(height, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
    axes.annotate(
        name,
        (1.0, height),
        (2, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        va="center",
        annotation_clip=False,
    )


def exact_match_curve(result: Result) -> tuple[list[float], list[float]]:
    """Thousands of samples, and exact match on test graphs; of an objective without answers, the first hop."""
    rows = [row for row in result.curve if row["split"] == "test"]
    name = "exact_match" if rows[-1]["evaluation"]["exact_match"]["n"] else "first_hop"
    return [row["samples"] / 1000 for row in rows], [share(row["evaluation"][name]) or 0.0 for row in rows]


def _curves(axes: Axes, cells: Cells, styles: Mapping[str, Style], graph: str) -> None:
    for label, seeds in cells:
        colour, dash, marker, _ = styles[label]
        for i, result in enumerate(seeds):
            x, y = exact_match_curve(result)
            axes.plot(
                x,
                y,
                color=colour,
                linestyle=dash,
                marker=marker,
                markevery=max(1, len(x) // 8),
                markersize=4,
                linewidth=1.4,
                label=label if i == 0 else None,
            )
    _level(axes, cells[0][1][0].chance, "1/d")
    axes.set(title=graph, xlabel="training samples (thousands)", ylim=(-0.03, 1.03))
    axes.set_ylabel("exact match on test graphs\n(in isolation: the first hop)")
    _legend_below(axes)


def _positions(axes: Axes, cells: Cells, styles: Mapping[str, Style]) -> None:
    width = 0.8 / len(cells)
    for i, (label, seeds) in enumerate(cells):
        colour, _, _, hatch = styles[label]
        columns = list(zip(*(forced(result.test) for result in seeds), strict=True))
        places = [p for p, column in enumerate(columns) if column[0] is not None]
        heights = [sum(v for v in columns[p] if v is not None) / len(seeds) for p in places]
        axes.bar(
            [p + (i - (len(cells) - 1) / 2) * width for p in places],
            heights,
            width * 0.92,
            color=colour,
            edgecolor="black",
            linewidth=0.4,
            hatch=hatch,
            label=label,
        )
    first = cells[0][1][0]
    _level(axes, first.chance, "1/d")
    axes.set_xticks(range(len(first.positions)), first.positions)
    axes.set(ylabel="accuracy given the gold tokens before", ylim=(0, 1.12), xlabel="target position")
