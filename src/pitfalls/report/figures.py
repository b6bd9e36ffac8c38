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
from pitfalls.schemas import ConfigError

POSITION_STYLES = {"start": 0, "first hop": 1, "goal": 2}
"""Styles of the positions that every graph has. Other positions take the following styles."""
Seeds = Mapping[str, Sequence[Kept]]
"""Runs by label, which are the seeds of each line or bar."""


def crowded(results: Sequence[Result]) -> bool:
    """Return whether some graph has more labels than there are styles. `bench_figures` draws such sets."""
    counts = Counter(graph for graph, _ in {(result.graph_label, result.cell.label) for result in results})
    return max(counts.values(), default=0) > len(STYLES)


@house_style
def draw(results: Sequence[Result], title: str) -> Figure:
    """Return a figure with learning curves in the first row and accuracy per position in the second, one column per graph."""
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
    """Return a figure of accuracy per position over training, one panel per cell (first seed), or None if no method has it."""
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
    """Return a figure of mean entropy per position, one panel per graph, or None if no method has a forced reading."""
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
    """Return one style per label, the same in every panel of a figure."""
    return styles_of(by_label(results))


def styles_of(labels: Seeds) -> dict[str, Style]:
    """Return a style for each label."""
    return {label: style(i) for i, label in enumerate(labels)}


def exact_match_curve(run: Kept) -> tuple[list[float], list[float]]:
    """Return thousands of samples and exact match on test graphs, or the first hop if the objective answers nothing else."""
    points = run.test_curve
    name = "exact_match" if points[-1].evaluation.exact_match.n else "first_hop"
    return [point.samples / 1000 for point in points], [getattr(point.evaluation, name).share or 0.0 for point in points]


def plot_curves(axes: Axes, seeds: Seeds, styles: Mapping[str, Style] | None = None) -> None:
    """Draw exact match on test graphs against training samples, one line per run, and 1/d.

    Args:
        axes: the axes to draw on.
        seeds: runs on one graph, by label.
        styles: styles by label, by default the first ones.

    Raises:
        ConfigError: ``seeds`` has no runs by label, or runs on several graphs.
    """
    _check(seeds)
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
    """Draw final accuracy per target position under teacher forcing, as means over seeds. See `plot_curves` for the arguments."""
    _check(seeds)
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
    """Draw mean entropy per target position under teacher forcing, and ln d. See `plot_curves` for the arguments.

    A method whose runs have no entropies, such as ``first_hop``, is left out. If all runs have none, a ConfigError says so.
    """
    _check(seeds)
    styles = styles or styles_of(seeds)
    entropies = {label: [run.entropies for run in runs if run.entropies is not None] for label, runs in seeds.items()}
    drawn = {label: rows for label, rows in entropies.items() if rows}
    if not drawn:
        raise ConfigError(f"{', '.join(map(str, seeds))}: these runs have no entropies; runs of objective=next_token have them")
    for i, (label, rows) in enumerate(drawn.items()):
        heights = [sum(column) / len(column) for column in zip(*rows, strict=True)]
        _bars(axes, range(len(heights)), heights, i, len(drawn), label, styles[label])
    first = _first(seeds)
    _level(axes, math.log(first.degree), "ln d")
    axes.set_xticks(range(len(first.positions)), first.positions)
    axes.set(ylabel="entropy, nats", xlabel="target position")
    _legend_below(axes)


def plot_positions_over_training(axes: Axes, run: Kept) -> None:
    """Draw accuracy under teacher forcing over training, one line per target position, and 1/d.

    Raises:
        ConfigError: ``run`` is not one run.
    """
    if not isinstance(run, Kept):
        raise ConfigError(f'run is a {type(run).__name__}: give one run, for example pitfalls.kept("results/laptop")[0]')
    points = run.test_curve
    for i, name in enumerate(run.positions):
        colour, dash, marker, _ = style(POSITION_STYLES.get(name, i + 1))
        y: Any = [point.evaluation.forced[i] for point in points]
        every = max(1, len(points) // 8)
        looks: Any = {"color": colour, "linestyle": dash, "marker": marker, "markevery": every, "markersize": 4, "linewidth": 1.3}
        axes.plot([point.samples / 1000 for point in points], y, label=name, **looks)
    _level(axes, run.chance, "1/d")
    axes.set(ylim=(-0.03, 1.03), xlabel="training samples (thousands)")


def _check(seeds: Seeds) -> None:
    """Raise an error unless ``seeds`` holds runs by label, all on one graph."""
    remedy = "give a mapping from label to list of runs, for example pitfalls.grouped(runs, lambda run: run.objective)"
    if not isinstance(seeds, Mapping):
        raise ConfigError(f"seeds is a {type(seeds).__name__}: {remedy}")
    if not seeds:
        raise ConfigError(f"seeds is empty: {remedy}")
    for label, runs in seeds.items():
        if not isinstance(runs, Sequence) or not runs or not all(isinstance(run, Kept) for run in runs):
            raise ConfigError(f"seeds[{label!r}] is not a list of runs: {remedy}")
    graphs = sorted({run.graph_label for runs in seeds.values() for run in runs})
    if len(graphs) > 1:
        raise ConfigError(
            f"runs on {len(graphs)} graphs, {' and '.join(graphs)}: take one graph, "
            f'for example [run for run in runs if run.graph_label == "{graphs[0]}"]'
        )


def _first(seeds: Seeds) -> Kept:
    return next(iter(seeds.values()))[0]


def _bars(axes: Axes, places: Sequence[int], heights: Sequence[float], i: int, n: int, label: str, looks: Style) -> None:
    """Draw the i-th of n groups of bars."""
    colour, _, _, hatch = looks
    width = 0.8 / n
    x = [place + (i - (n - 1) / 2) * width for place in places]
    axes.bar(x, heights, width * 0.92, color=colour, edgecolor="black", linewidth=0.4, hatch=hatch, label=label)


def _legend_below(axes: Axes) -> None:
    """Draw a legend under the axes, where it hides no curve."""
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1.0)


def _level(axes: Axes, height: float, name: str) -> None:
    """Draw a dotted level line, with its name to the right of the panel."""
    axes.axhline(height, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
    place: Any = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(name, (1.0, height), (2, 0), va="center", annotation_clip=False, **place)
