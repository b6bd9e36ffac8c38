"""The figures of a set of runs: exact match against samples with 1/d, and accuracy and entropy position by position.

`draw`, `draw_positions` and `draw_entropy` return whole figures. `plot_curves`, `plot_positions`, `plot_entropy` and
`plot_positions_over_training` draw into axes that the caller gives, for example in a notebook.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pitfalls.results.groups import grouped
from pitfalls.results.kept import Kept, Result
from pitfalls.results.plotting import STYLES, Style, entitle, house_style, style, subplots

POSITION_STYLES = {"start": 0, "first hop": 1, "goal": 2}
"""Styles of positions that every graph has; the others follow."""
Seeds = Mapping[str, Sequence[Kept]]
"""Runs by label: the seeds of each line or bar."""


def crowded(results: Sequence[Result]) -> bool:
    """Whether some graph has more labels than there are styles; `bench_figures` draws these."""
    counts = Counter(graph for graph, _ in {(result.graph_label, result.cell.label) for result in results})
    return max(counts.values(), default=0) > len(STYLES)


@house_style
def draw(results: Sequence[Result], title: str) -> Figure:
    """Return learning curves above, and accuracy per position below; a column per graph."""
    graphs, styles = grouped(results, lambda run: run.graph_label), _styles(results)
    figure, axes = subplots(2, len(graphs), figsize=(5.2 * len(graphs), 7.6), squeeze=False)
    for column, (graph, runs) in enumerate(graphs.items()):
        plot_curves(axes[0][column], by_label(runs), styles)
        axes[0][column].set_title(graph)
        plot_positions(axes[1][column], by_label(runs), styles)
    entitle(figure, title)
    return figure


@house_style
def draw_positions(results: Sequence[Result], title: str) -> Figure | None:
    """Return accuracy per position over training: one panel per cell, its first seed. None if no method can be read so."""
    first_seeds = [runs[0] for runs in grouped(results, lambda run: run.cell.name).values()]
    shown = [run for run in first_seeds if any(v is not None for v in run.record.test.forced)]
    if not shown:
        return None
    n_columns = min(3, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure, axes = subplots(n_rows, n_columns, figsize=(4.2 * n_columns, 2.9 * n_rows), squeeze=False)
    for panel, run in zip(axes.flat, shown, strict=False):
        plot_positions_over_training(panel, run)
        panel.set_title(f"{run.cell.label}, {run.model}\n{run.graph_label}", fontsize=8)
    for panel in axes.flat[len(shown) :]:
        panel.set_axis_off()
    longest = max(range(len(shown)), key=lambda i: len(shown[i].positions))
    handles, names = axes.flat[longest].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    entitle(figure, f"{title}: accuracy given the gold tokens before")
    return figure


@house_style
def draw_entropy(results: Sequence[Result], title: str) -> Figure | None:
    """Return mean entropy per position, a panel per graph. None if no method has a forced reading."""
    known = [result for result in results if result.entropies is not None]
    if not known:
        return None
    graphs, styles = grouped(known, lambda run: run.graph_label), _styles(results)
    figure, axes = subplots(1, len(graphs), figsize=(max(6.4, 4.6 * len(graphs)), 4.6), squeeze=False)
    for panel, (graph, runs) in zip(axes[0], graphs.items(), strict=True):
        plot_entropy(panel, by_label(runs), styles)
        panel.set_title(graph)
    entitle(figure, f"{title}: uncertainty, mean of the seeds")
    return figure


def by_label(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return results by the label of their cell."""
    return grouped(results, lambda run: run.cell.label)


def _styles(results: Sequence[Result]) -> dict[str, Style]:
    """One style per label, the same in every panel of a figure."""
    return styles_of(by_label(results))


def styles_of(labels: Seeds) -> dict[str, Style]:
    """Return a style for each label."""
    return {label: style(i) for i, label in enumerate(labels)}


def exact_match_curve(run: Kept) -> tuple[list[float], list[float]]:
    """Return thousands of samples, and exact match on test graphs; the first hop for an objective that answers no more."""
    points = run.test_curve
    name = "exact_match" if points[-1].evaluation.exact_match.n else "first_hop"
    return [point.samples / 1000 for point in points], [getattr(point.evaluation, name).share or 0.0 for point in points]


def plot_curves(axes: Axes, seeds: Seeds, styles: Mapping[str, Style] | None = None) -> None:
    """Draw exact match on test graphs against training samples, a line per run, and 1/d.

    Args:
        axes: where to draw.
        seeds: runs on one graph, by label.
        styles: by label; by default the first ones.
    """
    styles = styles or styles_of(seeds)
    for label, runs in seeds.items():
        for i, run in enumerate(runs):
            x, y = exact_match_curve(run)
            colour, dash, marker, _ = styles[label]
            every = max(1, len(x) // 8)
            looks: Any = {
                "color": colour,
                "linestyle": dash,
                "marker": marker,
                "markevery": every,
                "markersize": 4,
                "linewidth": 1.4,
            }
            axes.plot(x, y, label=label if i == 0 else None, **looks)
    _level(axes, _first(seeds).chance, "1/d")
    axes.set(xlabel="training samples (thousands)", ylim=(-0.03, 1.03))
    axes.set_ylabel("exact match on test graphs\n(in isolation: the first hop)")
    _legend_below(axes)


def plot_positions(axes: Axes, seeds: Seeds, styles: Mapping[str, Style] | None = None) -> None:
    """Draw final accuracy per target position given the gold tokens before it, means of the seeds; arguments as `plot_curves`."""
    styles = styles or styles_of(seeds)
    for i, (label, runs) in enumerate(seeds.items()):
        columns = list(zip(*(run.record.test.forced for run in runs), strict=True))
        places = [p for p, column in enumerate(columns) if column[0] is not None]
        heights = [sum(v for v in columns[p] if v is not None) / len(runs) for p in places]
        _bars(axes, places, heights, i, len(seeds), label, styles[label])
    first = _first(seeds)
    _level(axes, first.chance, "1/d")
    axes.set_xticks(range(len(first.positions)), first.positions)
    axes.set(ylabel="accuracy given the gold tokens before", ylim=(0, 1.12), xlabel="target position")


def plot_entropy(axes: Axes, seeds: Seeds, styles: Mapping[str, Style] | None = None) -> None:
    """Draw mean entropy per target position given the gold tokens before it, and ln d; arguments as `plot_curves`."""
    styles = styles or styles_of(seeds)
    for i, (label, runs) in enumerate(seeds.items()):
        heights = [sum(column) / len(column) for column in zip(*(run.entropies or [] for run in runs), strict=True)]
        _bars(axes, range(len(heights)), heights, i, len(seeds), label, styles[label])
    first = _first(seeds)
    _level(axes, math.log(first.degree), "ln d")
    axes.set_xticks(range(len(first.positions)), first.positions)
    axes.set(ylabel="entropy, nats", xlabel="target position")
    _legend_below(axes)


def plot_positions_over_training(axes: Axes, run: Kept) -> None:
    """Draw accuracy per target position over training, given the gold tokens before it, a line per position, and 1/d."""
    points = run.test_curve
    for i, name in enumerate(run.positions):
        colour, dash, marker, _ = style(POSITION_STYLES.get(name, i + 1))
        y: Any = [point.evaluation.forced[i] for point in points]
        every = max(1, len(points) // 8)
        looks: Any = {"color": colour, "linestyle": dash, "marker": marker, "markevery": every, "markersize": 4, "linewidth": 1.3}
        axes.plot([point.samples / 1000 for point in points], y, label=name, **looks)
    _level(axes, run.chance, "1/d")
    axes.set(ylim=(-0.03, 1.03), xlabel="training samples (thousands)")


def _first(seeds: Seeds) -> Kept:
    return next(iter(seeds.values()))[0]


def _bars(axes: Axes, places: Sequence[int], heights: Sequence[float], i: int, n: int, label: str, looks: Style) -> None:
    """The i-th of n groups of bars."""
    colour, _, _, hatch = looks
    width = 0.8 / n
    x = [place + (i - (n - 1) / 2) * width for place in places]
    axes.bar(x, heights, width * 0.92, color=colour, edgecolor="black", linewidth=0.4, hatch=hatch, label=label)


def _legend_below(axes: Axes) -> None:
    """A legend under the axes, out of the way of every curve."""
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1.0)


def _level(axes: Axes, height: float, name: str) -> None:
    """A dotted line, named to the right of the panel, where no curve runs."""
    axes.axhline(height, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
    place: Any = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(name, (1.0, height), (2, 0), va="center", annotation_clip=False, **place)
